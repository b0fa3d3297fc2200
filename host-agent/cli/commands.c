/* SPDX-License-Identifier: BSD-3-Clause */
/* The one command table. */
#include "host-agent/cli/cli.h"
#include "host-agent/cli/render.h"

#include "common/base/util.h"

#include <stdio.h>
#include <string.h>

const struct exit_text cli_exits[] = {
	{EXIT_OK, "done (also: kept as pending because a card is not reachable)"},
	{EXIT_FAILED, "failed inside the agent or the command"},
	{EXIT_USAGE, "wrong usage: unknown noun, verb, option or argument"},
	{EXIT_NOT_FOUND, "what was named does not exist"},
	{EXIT_REFUSED, "refused: a value is not allowed; nothing has changed"},
	{EXIT_CONFLICT,
		"refused: it exists, is in use, or the version is stale; nothing has changed"},
	{EXIT_NO_AGENT, "the agent is not reachable"},
	{EXIT_NO_CARD, "the card is not reachable, and what was asked for needs it"},
	{0, NULL},
};

const struct cli_noun cli_nouns[] = {
	{"node", "hosts with a card"},
	{"flash", "storage devices a card uses"},
	{"pool", "the flash of one card as one store, with its erasure code"},
	{"task", "work on what is on flash: rebuild, scrub, protect, evacuate, restore"},
	{"scrub", "read and check everything on flash, repair what is bad"},
	{"shard", "the threads of a card that carry out the VMs' requests"},
	{"vm", "virtual machines: rows of the data management table (203)"},
	{"device", "volumes of a VM; the name is the data path"},
	{"queue", "when protected writes are closed into a batch"},
	{"ec", "rows of the EC usage management table (204)"},
	{"table", "tables 203 and 204 as a whole: versions, push, fetch"},
	{"flow", "what steers a VF's traffic to the card"},
	{"explain", "why a request is protected, plain or intermediate"},
	{"status", "nodes, cards, pools"},
	{"stats", "counters of a card"},
	{"top", "what VMs, card and flash are doing, live"},
	{"events", "what happened"},
	{"apply", "one file for everything"},
	{"help", "help on a noun or a verb"},
	{"completion", "shell completion"},
	{NULL},
};

const struct cli_option cli_globals[] = {
	{"json", NULL, "print the answer as JSON", NULL, OPT_FLAG},
	{"agent", "SOCKET", "the agent's socket [$PARAPET_AGENT, /run/parapet/agent.sock]"},
	{"node", "NODE", "which node; not needed where there is only one"},
	{"help", NULL, "help on what is named so far", NULL, OPT_FLAG},
	{"version", NULL, "the version of this program", NULL, OPT_FLAG},
	{NULL},
};

/* ---- options ------------------------------------------------------------------------------------------------ */

static const struct cli_option base_option[] = {
	{"base", "VERSION", "refuse the change unless the node's tables have this version"},
	{"no-migrate", NULL, "what is on flash stays as it is, only new writes follow the change",
		NULL, OPT_FLAG},
	{NULL},
};
static const struct cli_option node_options[] = {
	{"address", "ADDRESS", "the card's control socket: unix:/PATH"},
	{"schedule", "WHEN",
		"when tables are sent: realtime, 'every SECONDS', 'at HH:MM' (UTC) [realtime]"},
	{"uplink", "PORT", "the card's port for everything that is not storage"},
	{"reception", "HOW", "adaptive, polling or interrupt [adaptive]"},
	{"methods", "NAMES", "access methods beyond object, block and filesystem", NULL, OPT_LIST},
	{NULL},
};
static const struct cli_option flash_options[] = {
	{"address", "ADDRESS",
		"file:/PATH (file or block device), mem:SIZE, 'nvme+tcp://HOST[:PORT]/NQN#NSID', "
		"'nvme+rdma://...' (quote it; several HOSTs with commas are "
		"paths)"},
	{"domain", "NAME", "failure domain: what fails together [a peer's first host, else local]"},
	{"atomic", "SIZE", "largest write that power loss cannot tear [what the device says]",
		"atomic_bytes"},
	{"block", "SIZE", "logical block, 512 or 4096 [what the device says]", "block_bytes"},
	{NULL},
};
static const struct cli_option flash_add_options[] = {
	{"spare", NULL, "keep it empty until another one fails", NULL, OPT_FLAG},
	{"force", NULL, "overwrite what it holds", NULL, OPT_FLAG},
	{NULL},
};
static const struct cli_option flash_remove_options[] = {
	{"force", NULL, "although data is lost; the answer names what", NULL, OPT_FLAG},
	{NULL},
};
static const struct cli_option flash_replace_options[] = {
	{"force", NULL, "overwrite what the new one holds; lose what cannot be kept", NULL,
		OPT_FLAG},
	{NULL},
};
static const struct cli_option flash_discover_options[] = {
	{"transport", "NAME", "tcp or rdma [tcp]"},
	{NULL},
};
static const struct cli_option flash_show_options[] = {
	{"health", NULL, "by node: state, reason, errors, latencies, paths, wear", NULL, OPT_FLAG},
	{NULL},
};
static const struct cli_option pool_code_options[] = {
	{"ec", "K+M", "data and parity fragments of new stripes, such as 4+2"},
	{"on-degraded", "WHAT",
		"refuse or allow writes that cannot have all their parity [refuse]"},
	{NULL},
};
static const struct cli_option pool_set_options[] = {
	{"suspect-ms", "N", "an I/O older than this makes its flash suspect ['': the default]"},
	{"timeout-ms", "N", "an I/O older than this makes its flash failed ['': the default]"},
	{"error-limit", "N", "so many errors in ten minutes make a flash failed ['': the default]"},
	{"space-warning", "PERCENT", "of the log in use: an event ['': 80]"},
	{"space-critical", "PERCENT", "of the log in use: an event, also to the VMs ['': 95]"},
	{"scrub-interval", "TIME", "between two scrubs, such as 7d; 0: only when asked for",
		"scrub_interval_s"},
	{"rebuild-delay", "TIME", "between a flash's failure and its rebuild", "rebuild_delay_s"},
	{"auto-restore", "ON|OFF", "a lost data area is made again on other flash, unasked"},
	{"auto-return", "ON|OFF",
		"flash on a peer comes back by itself when the peer is reachable again [on]"},
	{NULL},
};
static const struct cli_option pool_import_options[] = {
	{"force", NULL, "although live data is lost: its blocks become media errors", NULL,
		OPT_FLAG},
	{"take-over", NULL, "the former owner is off: do not ask, and fence it where the flash can",
		NULL, OPT_FLAG},
	{NULL},
};
static const struct cli_option task_start_options[] = {
	{"flash", "FLASH", "rebuild, evacuate: of this flash"},
	{"vm", "VM", "protect, restore, scrub: a device of this VM"},
	{"device", "PATH", "... this one", "path"},
	{"plain-too", NULL, "protect: also what is not protected by the policy", NULL, OPT_FLAG},
	{NULL},
};
static const struct cli_option task_limit_options[] = {
	{"share", "PERCENT", "bytes moved per 100 bytes that VMs read and write, 1% to 1000%"},
	{"ceiling", "RATE", "of all tasks together, such as 200MB/s; none"},
	{NULL},
};
static const struct cli_option pool_create_options[] = {
	{"segment", "SIZE", "segment size, fixed for ever [16M]", "segment_bytes"},
	{"same-flash", NULL, "fragments may lie on the data area's flash", NULL, OPT_FLAG},
	{"shards", "N",
		"cores that share the VMs, 1 to 16, fixed for ever: each gets its slice of every "
		"flash [as the card was started]"},
	{"force", NULL, "overwrite what the flash devices hold", NULL, OPT_FLAG},
	{NULL},
};
static const struct cli_option pool_open_options[] = {
	{"force", NULL, "although live data is lost: its blocks become media errors", NULL,
		OPT_FLAG},
	{"take-over", NULL,
		"another card has had it since, and is off: do not ask, and fence it where the "
		"flash can",
		NULL, OPT_FLAG},
	{NULL},
};
static const struct cli_option vm_options[] = {
	{"cores", "N", "CPU cores, for the record"},
	{"memory", "SIZE", "memory of the VM"},
	{"method", "METHOD", "access method: object, block, filesystem, ... [block]"},
	{"mode", "MODE", "auto, flag, method, path or method+path [auto: follows from the rows]"},
	{"data-flash", "FLASH", "where its data area lies"},
	{"intermediate-flash", "FLASH", "where its intermediate area lies; another one"},
	{"vf", "PORT", "the card's port of its VF, such as net_memif0"},
	{"card-ip", "IP/BITS", "the card's address on that port"},
	{"card-mac", "MAC", "the card's MAC on that port [made from the VM number]"},
	{"listen", "IP:PORT", "instead of a VF: a listen address over kernel sockets"},
	{"vhost", "DIR",
		"a directory on the card: each device is a vhost-user-blk socket in it, beside "
		"--vf or --listen or alone"},
	{"nqn", "NQN", "name of its NVMe subsystem [made by the card]"},
	{"hosts", "NQNS", "host NQNs that may connect [any that comes in there]", NULL, OPT_LIST},
	{"bandwidth", "MBPS", "cap in Mbit/s, in steps of 100; 0: none [none]", "bandwidth_mbps"},
	{"iops", "N", "cap in requests a second; 0: none [none]"},
	{"burst-ms", "N", "so much of its rate at once after a pause [100]"},
	{"weight", "N", "its share where VMs compete, 1 to 1000 [100]"},
	{"host-addr", "ADDR", "HostMemoryAddress of table 203"},
	{"guest-addr", "ADDR", "GuestMemoryAddress of table 203"},
	{NULL},
};
static const struct cli_option device_set_options[] = {
	{"method", "METHOD", "access method of this device [the VM's]"},
	{"layout", "LAYOUT",
		"of protected data: copy (a full copy and fragments) or fragments [copy]"},
	{"ec", "K+M", "erasure code of this device [the pool's]"},
	{NULL},
};
static const struct cli_option device_options[] = {
	{"size", "SIZE", "capacity, such as 10G"},
	{"block", "SIZE", "logical block, 512 or 4096 [what the flash allows]", "block_bytes"},
	{NULL},
};
static const struct cli_option queue_options[] = {
	{"bytes", "SIZE", "close a batch at so many bytes"},
	{"count", "N", "... at so many writes"},
	{"age-us", "N", "... when its first write has waited so long"},
	{"each", "ON|OFF", "every write is a batch of its own"},
	{"per-vm", "ON|OFF", "a batch holds one VM's writes only"},
	{"group-commit", "ON|OFF", "close at once when nothing is in flight"},
	{NULL},
};
static const struct cli_option row_key_options[] = {
	{"method", "METHOD", "rows that name this access method"},
	{"path", "PATH",
		"a device's path, its beginning (/dev/ecpool covers /dev/ecpool0), or a pattern "
		"with *"},
	{NULL},
};
static const struct cli_option row_options[] = {
	{"ec", "1|0", "the EC flag: encode, or do not"},
	{NULL},
};
static const struct cli_option version_options[] = {
	{"version", "N", "an older version"},
	{NULL},
};
static const struct cli_option push_options[] = {
	{"force", NULL, "replace whatever version the card has", NULL, OPT_FLAG},
	{NULL},
};
static const struct cli_option fetch_options[] = {
	{"adopt", NULL, "make the card's tables the store's", NULL, OPT_FLAG},
	{NULL},
};
static const struct cli_option explain_options[] = {
	{"write", NULL, "a write (this is what is explained without any option)", NULL, OPT_FLAG},
	{"read", NULL, "a read", NULL, OPT_FLAG},
	{"card", NULL, "ask the card what is in force there", NULL, OPT_FLAG},
	{NULL},
};
static const struct cli_option top_options[] = {
	{"interval", "SECONDS", "between two looks, 0.1 to 3600 [1]"},
	{"count", "N", "so many times [until it is ended]"},
	{"once", NULL, "one interval, then end", NULL, OPT_FLAG},
	{"sort", "KEY", "VMs by iops, bytes, p99, waiting, capped or name [bytes]"},
	{NULL},
};
static const struct cli_option events_options[] = {
	{"follow", NULL, "go on showing them as they come", NULL, OPT_FLAG},
	{"after", "N", "those after this number only"},
	{NULL},
};
static const struct cli_option apply_options[] = {
	{"file", "FILE", "YAML or JSON; '-' is standard input (short: -f)"},
	{"check", NULL, "tell what would change, change nothing", NULL, OPT_FLAG},
	{NULL},
};
static const struct cli_option help_options[] = {
	{"man", NULL, "the whole manual as a man page", NULL, OPT_FLAG},
	{NULL},
};

/* ---- arguments ----------------------------------------------------------------------------------------------- */

static const struct cli_argument name_arg[] = {{"NAME", "name"}, {NULL}};
static const struct cli_argument node_arg_optional[] = {{"NODE", "node", true}, {NULL}};
static const struct cli_argument name_arg_optional[] = {{"NAME", "name", true}, {NULL}};
static const struct cli_argument vm_device_args[] = {{"VM", "vm"}, {"DEVICE", "path"}, {NULL}};
static const struct cli_argument flash_replace_args[] = {{"OLD", "name"}, {"NEW", "by"}, {NULL}};
static const struct cli_argument host_arg[] = {{"HOST[:PORT]", "host"}, {NULL}};
static const struct cli_argument import_args[] = {
	{"NAME=ADDRESS", "flashes", .many = true}, {NULL}};
static const struct cli_argument task_arg[] = {{"ID", "id"}, {NULL}};
static const struct cli_argument task_arg_optional[] = {{"ID", "id", true}, {NULL}};
static const struct cli_argument reason_arg[] = {{"REASON", "reason"}, {NULL}};
static const struct cli_argument scrub_args[] = {
	{"VM", "vm", true}, {"DEVICE", "path", true}, {NULL}};
static const struct cli_argument grow_args[] = {
	{"VM", "vm"}, {"DEVICE", "path"}, {"SIZE", "size"}, {NULL}};
static const struct cli_argument explain_args[] = {{"VM", "vm"}, {"DEVICE", "device"}, {NULL}};
static const struct cli_argument shard_move_args[] = {{"VM", "vm"}, {"SHARD", "shard"}, {NULL}};
static const struct cli_argument vm_arg[] = {{"VM", "vm"}, {NULL}};
static const struct cli_argument vm_arg_optional[] = {
	{"VM", "vm", true}, {"DEVICE", "path", true}, {NULL}};
static const struct cli_argument only_vm_arg_optional[] = {{"VM", "vm", true}, {NULL}};
static const struct cli_argument diff_args[] = {{"FROM", "from", true}, {"TO", "to", true}, {NULL}};
static const struct cli_argument help_args[] = {
	{"NOUN", "noun", true}, {"VERB", "verb", true}, {NULL}};
static const struct cli_argument shell_arg[] = {{"SHELL", "shell"}, {NULL}};

/* ---- commands ------------------------------------------------------------------------------------------------ */

#define LIVE "{\"live\": \"1\"}"

const struct cli_command cli_commands[] = {
	{"node", "add", "make a node known", name_arg, {node_options}, "POST", "/v1/nodes", NULL,
		render_change},
	{"node", "show", "list nodes", name_arg_optional, {NULL}, "GET", "/v1/nodes", NULL,
		render_nodes},
	{"node", "set", "change a node", name_arg, {node_options}, "PATCH", "/v1/nodes", NULL,
		render_change},
	{"node", "del", "forget a node that has nothing left", name_arg, {NULL}, "DELETE",
		"/v1/nodes", NULL, render_change},

	{"flash", "add", "a flash device for the pool: for the one to be, or the one there is",
		name_arg, {flash_options, flash_add_options}, "POST", "/v1/flashes", NULL,
		render_change},
	{"flash", "show", "list flash devices, what lies on them, how they are", name_arg_optional,
		{flash_show_options}, NULL, NULL, NULL, NULL, flash_show_run},
	{"flash", "discover", "ask a peer which namespaces it offers, as the card sees it",
		host_arg, {flash_discover_options}, "GET", "/v1/flashes/discover", NULL,
		render_discovery, NULL,
		"HOST is numeric, PORT that of a discovery controller (8009, then 4420). The "
		"addresses that are shown go to 'flash add --address' and into YAML, quoted."},
	{"flash", "remove", "drain a flash device and take it out of the pool", name_arg,
		{flash_remove_options}, "DELETE", "/v1/flashes", NULL, render_change, NULL,
		"Refused where what it holds could not be kept; the complaint names what. Before "
		"the pool is created it is just taken off the list."},
	{"flash", "replace", "move everything from one flash device to another, remove the first",
		flash_replace_args, {flash_options, flash_replace_options}, NULL, NULL, NULL, NULL,
		flash_replace_run,
		"NEW is added with --address, or is in the pool already (a spare). A smaller one "
		"is refused. VMs with an area on OLD get it on NEW."},
	{"flash", "return", "a failed or missing flash device is there again", name_arg, {NULL},
		"POST", "/v1/flashes/return", NULL, render_flash_return},
	{"flash", "fail", "take a flash device of a pool out of service now", name_arg, {NULL},
		"POST", "/v1/flashes/fail", NULL, render_flash_fail, NULL,
		"What it held is made again on the others."},

	{"pool", "create", "make the pool of all flash devices of the node", NULL,
		{pool_code_options, pool_create_options, pool_set_options}, "POST", "/v1/pools",
		NULL, render_change},
	{"pool", "open", "open a pool that the card did not open by itself", NULL,
		{pool_open_options}, NULL, NULL, NULL, NULL, pool_open_run},
	{"pool", "import", "take over a pool from its flash devices, on this node", import_args,
		{pool_import_options}, NULL, NULL, NULL, NULL, pool_import_run,
		"Names every member that is there: f0=file:/srv/f0 ... The former owner must be "
		"off: on a terminal this is asked, otherwise --take-over says so. Flash with "
		"reservations keeps it out; elsewhere it is fenced as soon as it looks."},
	{"pool", "checkpoint", "write a checkpoint now", NULL, {NULL}, "POST",
		"/v1/pools/checkpoint", NULL, render_pool_open},
	{"pool", "set", "change the pool; an empty value ('') goes back to the default", NULL,
		{pool_code_options, pool_set_options}, "PATCH", "/v1/pools", NULL, render_change},
	{"pool", "show", "the pool and its state", NULL, {NULL}, "GET", "/v1/pools", LIVE,
		render_pools},

	{"task", "show", "list tasks, or one", task_arg_optional, {NULL}, "GET", "/v1/tasks", NULL,
		render_tasks},
	{"task", "watch", "follow a task to its end; without ID all that run", task_arg_optional,
		{NULL}, NULL, NULL, NULL, NULL, task_watch_run,
		"Ends with 0 when the tasks succeeded, with 1 when one failed or was cancelled. "
		"With --json a line each time something changes."},
	{"task", "start", "start one: rebuild, scrub, protect, evacuate or restore", reason_arg,
		{task_start_options}, "POST", "/v1/tasks", NULL, render_tasks},
	{"task", "pause", "pause a task", task_arg, {NULL}, "POST", "/v1/tasks/pause", NULL,
		render_tasks},
	{"task", "resume", "let a paused task go on", task_arg, {NULL}, "POST", "/v1/tasks/resume",
		NULL, render_tasks},
	{"task", "cancel", "end a task; what it has done stays", task_arg, {NULL}, "POST",
		"/v1/tasks/cancel", NULL, render_tasks},
	{"task", "limits", "how much tasks may take, at once and kept", NULL, {task_limit_options},
		"PATCH", "/v1/tasks/limits", NULL, render_limits},
	{"scrub", NULL, "start a scrub: of the pool, or of one device of a VM", scrub_args, {NULL},
		"POST", "/v1/tasks", "{\"reason\": \"scrub\"}", render_tasks},

	{"shard", "show", "the shards of a card: load, VMs, room", node_arg_optional, {NULL}, "GET",
		"/v1/shards", NULL, render_shards, NULL,
		"LOAD is the part of the time that its thread has run since the card was started; "
		"a "
		"polling card always runs. USED and FREE are of its own slice of the flash: a "
		"shard "
		"can be full while another is not."},

	{"shard", "move", "take a VM to another shard while it goes on", shard_move_args, {NULL},
		"POST", "/v1/shards/move", NULL, render_tasks, NULL,
		"Its devices are copied by a task (task watch, pause, resume, cancel); then the VM "
		"stands still for what it has written last, and goes on there. A VM behind a port "
		"stays on shard 0."},

	{"vm", "add", "make a VM known", name_arg, {vm_options, base_option}, "POST", "/v1/vms",
		NULL, render_change},
	{"vm", "set", "change a VM; an empty value ('') clears a setting", name_arg,
		{vm_options, base_option}, "PATCH", "/v1/vms", NULL, render_change},
	{"vm", "show", "list VMs; one VM with its devices and rows", name_arg_optional, {NULL},
		NULL, NULL, NULL, NULL, vm_show_run},
	{"vm", "attach-xml", "how the VM attaches its devices as virtio-blk: for libvirt and QEMU",
		name_arg, {NULL}, NULL, NULL, NULL, NULL, vm_attach_run,
		"The VM needs a directory for the sockets (vm set --vhost DIR). Its memory must be "
		"shared with the card, as shown."},
	{"vm", "del", "forget a VM that has no devices left", name_arg, {base_option}, "DELETE",
		"/v1/vms", NULL, render_change},

	{"device", "add", "make a volume for a VM", vm_device_args,
		{device_options, device_set_options, base_option}, "POST", "/v1/devices", NULL,
		render_change},
	{"device", "set", "change a device; what is on flash follows by a task", vm_device_args,
		{device_set_options, base_option}, "PATCH", "/v1/devices", NULL, render_change},
	{"device", "grow", "make a device larger; connected hosts see it at once", grow_args,
		{base_option}, "PATCH", "/v1/devices", NULL, render_change},
	{"device", "show", "list devices and what happens to their writes", vm_arg_optional, {NULL},
		"GET", "/v1/devices", LIVE, render_devices},
	{"device", "del", "delete a device and its data; refused while it is connected",
		vm_device_args, {base_option}, "DELETE", "/v1/devices", NULL, render_change},

	{"queue", "set", "change the queue controller", NULL, {queue_options, base_option}, "POST",
		"/v1/queues", NULL, render_change},
	{"queue", "show", "its settings", NULL, {NULL}, "GET", "/v1/queues", NULL, render_queues},

	{"ec", "set", "add a row, or set its flag", vm_arg,
		{row_key_options, row_options, base_option}, "POST", "/v1/rows", NULL,
		render_change, NULL,
		"Without --method and --path the row holds for the whole VM (mode flag only)."},
	{"ec", "show", "list rows; COVERS: devices a row applies to", only_vm_arg_optional, {NULL},
		"GET", "/v1/rows", NULL, render_rows},
	{"ec", "clear", "delete rows: all of a VM, or those of a method and a path", vm_arg,
		{row_key_options, base_option}, "DELETE", "/v1/rows", NULL, render_change},

	{"table", "show", "both tables and every outcome", NULL, {version_options}, "GET",
		"/v1/table", NULL, render_table},
	{"table", "diff", "what changed between two versions [the newest and the one before]",
		diff_args, {NULL}, "GET", "/v1/table/diff", NULL, render_table_diff},
	{"table", "history", "every version, when and by whom", NULL, {NULL}, "GET",
		"/v1/table/history", NULL, render_table_history},
	{"table", "push", "send the newest version now", NULL, {push_options}, "POST",
		"/v1/table/push", NULL, render_table_push},
	{"table", "fetch", "compare with what the card has", NULL, {fetch_options}, "POST",
		"/v1/table/fetch", NULL, render_table_fetch},

	{"flow", "show", "the rules, hardware or software, with counters", NULL, {NULL}, "GET",
		"/v1/flows", NULL, render_flows},
	{"explain", NULL, "why a request to a device is protected, plain or intermediate",
		explain_args, {explain_options}, NULL, NULL, NULL, NULL, explain_run},
	{"status", NULL, "nodes, cards and pools at a glance", NULL, {NULL}, "GET", "/v1/status",
		NULL, render_status},
	{"stats", NULL, "counters of a card", NULL, {NULL}, "GET", "/v1/stats", NULL, render_stats},
	{"top", NULL, "rates, latencies, batches and where time goes, live", NULL, {top_options},
		NULL, NULL, NULL, NULL, top_run,
		"On a terminal the screen is kept up to date (q ends it, other keys are shown); "
		"else, "
		"and with --once, there is a table per interval, with --json a line of JSON. "
		"All of it is what happened in the last interval, by the card's clock. SHARE is "
		"the "
		"part of the time that all requests spent: wait, admit, device and finish follow "
		"each other, area, queue and log are parts of device."},
	{"events", NULL, "what cards and agent reported", NULL, {events_options}, NULL, NULL, NULL,
		NULL, events_run},
	{"apply", NULL, "make the configuration what a file says; says what changed", NULL,
		{apply_options}, NULL, NULL, NULL, NULL, apply_run,
		"What the file does not name stays; a VM's list 'ec' replaces all of its rows."},
	{"help", NULL, "help on a noun or a verb", help_args, {help_options}, NULL, NULL, NULL,
		NULL, help_run},
	{"completion", NULL, "a completion script: bash", shell_arg, {NULL}, NULL, NULL, NULL, NULL,
		completion_run},
	{NULL},
};

const struct cli_command *cli_find(const char *noun, const char *verb)
{
	for (const struct cli_command *c = cli_commands; c->noun; c++) {
		if (strcmp(c->noun, noun) != 0)
			continue;
		if (!c->verb ? !verb : verb && !strcmp(c->verb, verb))
			return c;
	}
	return NULL;
}

const struct cli_noun *cli_find_noun(const char *name)
{
	for (const struct cli_noun *n = cli_nouns; n->name; n++)
		if (!strcmp(n->name, name))
			return n;
	return NULL;
}

const char *cli_field(const struct cli_option *o, char *buf, size_t size)
{
	if (o->field)
		return o->field;
	snprintf(buf, size, "%s", o->name);
	for (char *p = buf; *p; p++)
		if (*p == '-')
			*p = '_';
	return buf;
}
