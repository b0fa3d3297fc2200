/* SPDX-License-Identifier: BSD-3-Clause */
/* How each answer looks to a person. See cli.h. */
#ifndef HOST_AGENT_CLI_RENDER_H
#define HOST_AGENT_CLI_RENDER_H

#include "host-agent/cli/cli.h"

void render_change(struct cli *c, const json_t *a);
void render_nodes(struct cli *c, const json_t *a);
void render_flashes(struct cli *c, const json_t *a);
void render_flash_health(struct cli *c, const json_t *a);
void render_discovery(struct cli *c, const json_t *a);
void out_named(const json_t *list, const char *indent); /* [{name, value}], a line each */
void out_nodes(const json_t *pool); /* its nodes, each with its flash */
void render_flash_return(struct cli *c, const json_t *a);
void render_pool_import(struct cli *c, const json_t *a);
void render_tasks(struct cli *c, const json_t *a);
void out_tasks(const json_t *tasks); /* a table of them */
void render_limits(struct cli *c, const json_t *a);
void render_flash_fail(struct cli *c, const json_t *a);
void render_pools(struct cli *c, const json_t *a);
void render_pool_open(struct cli *c, const json_t *a);
void render_vms(struct cli *c, const json_t *a);
void render_devices(struct cli *c, const json_t *a);
void render_queues(struct cli *c, const json_t *a);
void render_rows(struct cli *c, const json_t *a);
void render_table(struct cli *c, const json_t *a);
void render_table_diff(struct cli *c, const json_t *a);
void render_table_history(struct cli *c, const json_t *a);
void render_table_push(struct cli *c, const json_t *a);
void render_table_fetch(struct cli *c, const json_t *a);
void render_explain(struct cli *c, const json_t *a);
void render_flows(struct cli *c, const json_t *a);
void render_status(struct cli *c, const json_t *a);
void render_shards(struct cli *c, const json_t *a);
void render_stats(struct cli *c, const json_t *a);

#endif
