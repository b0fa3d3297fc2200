/* SPDX-License-Identifier: BSD-3-Clause */
/* `parapet top`: asks again and again; on a terminal the screen is drawn over, else there are tables or JSON lines. */
#include "host-agent/cli/top.h"

#include "common/base/clock.h"
#include "common/base/util.h"
#include "host-agent/cli/cli.h"
#include "host-agent/cli/http.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define INTERVAL_MIN 0.1
#define INTERVAL_MAX 3600.0

struct top {
	struct cli *c;
	json_t *query; /* the node */
	double interval_s;
	unsigned long count; /* 0: until it is ended */
	const char *sort;
	json_t *then; /* the answer before */
	json_t *shown; /* the difference on the screen; NULL: none yet */
	char trouble[160]; /* why there is no newer one */
	struct termios was;
};

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static const struct cli_command question = {.method = "GET", .path = "/v1/top"};

/* EXIT_OK and *answer, or what is wrong, said. quiet: kept in t->trouble. */
static int ask(struct top *t, json_t **answer, bool quiet)
{
	struct err e = {0};
	long status = 0;
	int rc;

	*answer = NULL;
	rc = http_call(t->c->socket, "GET", question.path, t->query, NULL, &status, answer, &e);
	if (rc == 0 && status == 200)
		return EXIT_OK;
	if (!quiet && rc < 0)
		return cli_complain(t->c, &e, rc == -ECONNREFUSED ? EXIT_NO_AGENT : EXIT_FAILED);
	if (!quiet)
		return cli_show(t->c, &question, status, *answer);
	snprintf(t->trouble, sizeof(t->trouble), "%s",
		rc < 0 ? err_text(&e) : "the card is not reachable");
	json_decref(*answer);
	*answer = NULL;
	return EXIT_NO_CARD;
}

/* The difference to the answer before; NULL where there is none to speak of. Takes the answer over. */
static json_t *step(struct top *t, json_t *now)
{
	json_t *d = t->then ? top_difference(t->then, now) : NULL;

	json_decref(t->then);
	t->then = now;
	if (d)
		top_sort(d, t->sort);
	return d;
}

/* ---- lines ----------------------------------------------------------------------------------------------------------- */

static int lines(struct top *t)
{
	unsigned long shown = 0;

	while (!t->count || shown < t->count) {
		json_t *now, *d;
		int rc = ask(t, &now, false);

		if (rc != EXIT_OK)
			return rc;
		d = step(t, now);
		if (d && t->c->json) {
			json_dumpf(d, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
			puts("");
		} else if (d) {
			if (shown)
				puts("");
			top_render(stdout, d);
		}
		shown += d != NULL;
		json_decref(d);
		if (fflush(stdout))
			return EXIT_FAILED; /* nobody reads any more */
		if (!t->count || shown < t->count)
			poll(NULL, 0, (int)(t->interval_s * 1000));
	}
	return EXIT_OK;
}

/* ---- the screen --------------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t resized, ended;

static void on_signal(int sig)
{
	if (sig == SIGWINCH)
		resized = 1;
	else
		ended = 1;
}

static void screen_open(struct top *t)
{
	struct sigaction sa = {.sa_handler = on_signal}; /* without SA_RESTART: poll() returns */
	struct termios raw;

	sigaction(SIGWINCH, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	tcgetattr(STDIN_FILENO, &t->was);
	raw = t->was;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG); /* ^C is a key as well, ^Z is none */
	raw.c_cc[VMIN] = 0;
	raw.c_cc[VTIME] = 0;
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw);
	fputs("\033[?1049h\033[?25l", stdout);
}

static void screen_close(struct top *t)
{
	fputs("\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &t->was);
}

static void line_out(const char *text, size_t len, size_t width, const char *before)
{
	printf("%s%.*s\033[0m\033[K", before, (int)MIN(len, width), text);
}

/* What fits on the screen, and the keys in its last line. */
static void draw(struct top *t)
{
	struct winsize ws = {.ws_row = 24, .ws_col = 80};
	autofree char *text = NULL;
	size_t size, row = 1;
	char last[256];
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return;
	if (t->shown)
		top_render(f, t->shown);
	else
		fprintf(f, "the first numbers come in %.1f s\n", t->interval_s);
	fclose(f);
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) < 0 || !ws.ws_row || !ws.ws_col) {
		ws.ws_row = 24;
		ws.ws_col = 80;
	}
	fputs("\033[H", stdout);
	for (const char *p = text; *p && row < ws.ws_row; row++) {
		size_t len = strcspn(p, "\n");
		bool title = !strncmp(p, "VM ", 3) || !strncmp(p, "REQUESTS ", 9) ||
			     !strncmp(p, "FLASH ", 6);

		line_out(p, len, ws.ws_col, title ? "\033[7m" : "");
		fputs("\r\n", stdout);
		p += len + (p[len] == '\n');
	}
	snprintf(last, sizeof(last),
		"%s%s by %s; keys: q quit, i iops, b bytes, l p99, w waiting, c capped, n name, "
		"+/- %.1f s",
		t->trouble, t->trouble[0] ? ";" : "sorted", t->sort, t->interval_s);
	fputs("\033[J", stdout);
	printf("\033[%u;1H", ws.ws_row);
	line_out(last, strlen(last), ws.ws_col, "\033[2m");
	fflush(stdout);
}

static void sort_by(struct top *t, const char *key)
{
	t->sort = key;
	if (t->shown)
		top_sort(t->shown, key);
}

/* False: it is over. */
static bool key_pressed(struct top *t, char key)
{
	switch (key) {
	case 'q':
	case 'Q':
	case 3: /* ^C */
	case 4: /* ^D */
		return false;
	case 'i':
		sort_by(t, "iops");
		break;
	case 'b':
		sort_by(t, "bytes");
		break;
	case 'l':
		sort_by(t, "p99");
		break;
	case 'w':
		sort_by(t, "waiting");
		break;
	case 'c':
		sort_by(t, "capped");
		break;
	case 'n':
		sort_by(t, "name");
		break;
	case '+':
		t->interval_s = MIN(t->interval_s * 2, INTERVAL_MAX);
		break;
	case '-':
		t->interval_s = MAX(t->interval_s / 2, INTERVAL_MIN);
		break;
	default:
		break;
	}
	return true;
}

/* Until it is time for the next answer. False: it is over. */
static bool attend(struct top *t, int64_t until_ms)
{
	while (!ended) {
		struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
		int64_t left = until_ms - clock_now_ms();
		char keys[16];
		ssize_t n;

		if (left <= 0)
			return true;
		if (poll(&in, 1, (int)MIN(left, 1000)) > 0) {
			n = read(STDIN_FILENO, keys, sizeof(keys));
			if (n <= 0)
				return false; /* the terminal is gone */
			for (ssize_t i = 0; i < n; i++)
				if (!key_pressed(t, keys[i]))
					return false;
			draw(t);
		} else if (resized) {
			resized = 0;
			draw(t);
		}
	}
	return false;
}

static int screen(struct top *t)
{
	unsigned long shown = 0;
	json_t *now, *d;
	int rc = ask(t, &now, false);

	if (rc != EXIT_OK)
		return rc;
	step(t, now);
	screen_open(t);
	draw(t);
	while ((!t->count || shown < t->count) &&
		attend(t, clock_now_ms() + (int64_t)(t->interval_s * 1000))) {
		if (ask(t, &now, true) == EXIT_OK) {
			t->trouble[0] = '\0';
			d = step(t, now);
			if (d) {
				json_decref(t->shown);
				t->shown = d;
				shown++;
			}
		}
		draw(t);
	}
	screen_close(t);
	return EXIT_OK;
}

/* ---- options --------------------------------------------------------------------------------------------------------------- */

static int refuse(struct cli *c, const char *option, const char *value, const char *allowed)
{
	struct err e = {0};

	err_set(&e, -EINVAL, option, "", "'%.40s' is not possible; allowed: %s", value, allowed);
	return cli_complain(c, &e, EXIT_USAGE);
}

static int options(struct top *t)
{
	const json_t *r = t->c->request;
	const char *s;
	char *end;

	t->interval_s = 1;
	t->sort = "bytes";
	if ((s = json_string_value(json_object_get(r, "interval")))) {
		t->interval_s = strtod(s, &end);
		if (end == s || *end ||
			!(t->interval_s >= INTERVAL_MIN && t->interval_s <= INTERVAL_MAX))
			return refuse(t->c, "--interval", s, "0.1 to 3600 seconds");
	}
	if ((s = json_string_value(json_object_get(r, "count")))) {
		errno = 0;
		t->count = strtoul(s, &end, 10);
		if (*s < '0' || *s > '9' || *end || errno || !t->count)
			return refuse(t->c, "--count", s, "1 and more");
	}
	if (json_is_true(json_object_get(r, "once")))
		t->count = 1;
	if ((s = json_string_value(json_object_get(r, "sort")))) {
		if (!top_sort_known(s))
			return refuse(t->c, "--sort", s, TOP_SORTS);
		t->sort = s;
	}
	if (json_object_get(r, "node"))
		json_object_set(t->query, "node", json_object_get(r, "node"));
	return EXIT_OK;
}

int top_run(struct cli *c, const struct cli_command *cmd)
{
	struct top t = {.c = c, .query = json_object()};
	bool terminal = !c->json && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) &&
			!json_object_get(c->request, "once");
	int rc = options(&t);

	if (rc == EXIT_OK)
		rc = terminal ? screen(&t) : lines(&t);
	json_decref(t.shown);
	json_decref(t.then);
	json_decref(t.query);
	return rc;
}
