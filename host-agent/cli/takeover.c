/* SPDX-License-Identifier: BSD-3-Clause */
/* A pool whose last owner is another card: is that one off? On a terminal this is asked; otherwise --take-over says so. */
#include "host-agent/cli/cli.h"

#include "host-agent/cli/http.h"
#include "host-agent/cli/out.h"
#include "host-agent/cli/render.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool may_ask(const struct cli *c)
{
	return !c->json && !json_is_true(json_object_get(c->request, "take_over")) &&
	       isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

static bool confirmed(const json_t *error)
{
	char line[32] = "";

	fprintf(stderr,
		"%s\nIf both cards write, data is lost. Is the former owner off, and will it stay "
		"so? "
		"Type 'yes' to take the pool over: ",
		out_string(error, "reason"));
	fflush(stderr);
	return fgets(line, sizeof(line), stdin) && !strcmp(line, "yes\n");
}

/* Asks the agent first; where the pool is somebody else's, the operator. */
static int request(struct cli *c, const struct cli_command *cmd)
{
	json_t *answer = NULL, *error;
	struct err e = {0};
	long status = 0;
	int rc;

	if (!may_ask(c))
		return cli_request(c, cmd);
	rc = http_call(c->socket, cmd->method, cmd->path, NULL, c->request, &status, &answer, &e);
	if (rc < 0)
		return cli_complain(c, &e, rc == -ECONNREFUSED ? EXIT_NO_AGENT : EXIT_FAILED);
	error = json_object_get(answer, "error");
	if (error && !strcmp(out_string(error, "code"), "EOWNERDEAD") && confirmed(error)) {
		json_decref(answer);
		json_object_set_new(c->request, "take_over", json_true());
		return cli_request(c, cmd);
	}
	return cli_show(c, cmd, status, answer);
}

int pool_open_run(struct cli *c, const struct cli_command *cmd)
{
	return request(
		c, &(struct cli_command){
			   .method = "POST", .path = "/v1/pools/open", .render = render_pool_open});
}

int pool_import_run(struct cli *c, const struct cli_command *cmd)
{
	return request(c, &(struct cli_command){.method = "POST",
				  .path = "/v1/pools/import",
				  .render = render_pool_import});
}
