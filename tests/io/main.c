/* SPDX-License-Identifier: BSD-3-Clause */
/* parapet-io: writes, reads and verifies stamped data over NVMe-oF; see --help. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/base/units.h"
#include "common/base/util.h"
#include "tests/io/engine.h"
#include "tests/io/opts.h"
#include "tests/io/report.h"

#define NS_LIST 256
#define RECORDS 64

static int fail(enum io_exit code, const struct opts *o, const char *text)
{
	json_t *j;

	if (!o->json) {
		fprintf(stderr, "parapet-io: %s\n", text);
		return code;
	}
	j = json_pack("{s:s, s:i, s:b, s:s}", "command", o->command_name, "exit", (int)code, "ok",
		0, "error", text);
	json_dumpf(j, stdout, JSON_INDENT(1));
	putchar('\n');
	json_decref(j);
	return code;
}

/* ---- identify --------------------------------------------------------------------------------------------------- */

static void add_ns(json_t *list, struct nvmf *n, uint32_t nsid, bool json)
{
	struct nvmf_ns ns;
	char size[32], nguid[33];

	if (nvmf_identify_ns(n, nsid, &ns) < 0)
		return;
	for (int i = 0; i < 16; i++)
		snprintf(nguid + 2 * i, 3, "%02x", ns.nguid[i]);
	units_format_bytes(ns.nblocks * ns.block_bytes, size, sizeof(size));
	if (!json)
		printf("  namespace %u: %s, %u byte blocks%s, NGUID %s\n", nsid, size,
			ns.block_bytes, ns.thin ? ", thin" : "", nguid);
	json_array_append_new(
		list, json_pack("{s:I, s:I, s:i, s:b, s:s}", "nsid", (json_int_t)nsid, "bytes",
			      (json_int_t)(ns.nblocks * ns.block_bytes), "block_bytes",
			      (int)ns.block_bytes, "thin", ns.thin, "nguid", nguid));
}

static int identify(struct engine *e, const struct opts *o)
{
	struct nvmf *n = engine_nvmf(e);
	const struct nvme_id_ctrl *id = nvmf_id(n);
	json_t *list = json_array(), *j;
	char model[41], serial[21], firmware[9];
	uint32_t nsids[NS_LIST];
	int count = nvmf_list_ns(n, 0, nsids, NS_LIST);

	nvme_ascii_text(id->mn, sizeof(id->mn), model);
	nvme_ascii_text(id->sn, sizeof(id->sn), serial);
	nvme_ascii_text(id->fr, sizeof(id->fr), firmware);
	if (!o->json)
		printf("%s: controller %u, model %s, serial %s, firmware %s\n"
		       "  %u I/O queues of depth %u, %u bytes per command\n",
			o->nqn, from_le16(id->cntlid), model, serial, firmware, nvmf_nqueues(n),
			nvmf_depth(n), nvmf_max_io_bytes(n));
	for (int i = 0; i < count; i++)
		add_ns(list, n, nsids[i], o->json);
	j = json_pack("{s:s, s:i, s:b, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:I, s:b, s:o}",
		"command", "identify", "exit", count < 0 ? EXIT_IO : EXIT_OK, "ok", count >= 0,
		"nqn", o->nqn, "model", model, "serial", serial, "firmware", firmware, "cntlid",
		(int)from_le16(id->cntlid), "queues", (int)nvmf_nqueues(n), "depth",
		(int)nvmf_depth(n), "max_io_bytes", (json_int_t)nvmf_max_io_bytes(n),
		"volatile_write_cache", id->vwc & NVME_VWC_PRESENT, "namespaces", list);
	if (o->json) {
		json_dumpf(j, stdout, JSON_INDENT(1));
		putchar('\n');
	}
	json_decref(j);
	return count < 0 ? EXIT_IO : EXIT_OK;
}

/* ---- discover ------------------------------------------------------------------------------------------------------- */

static json_t *record_json(const struct nvme_discovery_record *r)
{
	char addr[257], port[33], nqn[257];

	return json_pack("{s:i, s:i, s:i, s:s, s:s, s:s}", "trtype", r->trtype, "adrfam", r->adrfam,
		"subtype", r->subtype, "traddr",
		nvme_ascii_text(r->traddr, sizeof(r->traddr), addr), "trsvcid",
		nvme_ascii_text(r->trsvcid, sizeof(r->trsvcid), port), "subnqn",
		nvme_ascii_text(r->subnqn, sizeof(r->subnqn), nqn));
}

static int discover(struct engine *e, const struct opts *o)
{
	static struct nvme_discovery_record records[RECORDS];
	json_t *list = json_array(), *j;
	uint32_t count = 0;
	uint64_t total = 0;
	int rc = nvmf_discover(engine_nvmf(e), records, RECORDS, &count, &total);

	for (uint32_t i = 0; rc == 0 && i < count; i++) {
		json_t *r = record_json(&records[i]);

		if (!o->json)
			printf("%s  %s:%s%s\n", json_string_value(json_object_get(r, "subnqn")),
				json_string_value(json_object_get(r, "traddr")),
				json_string_value(json_object_get(r, "trsvcid")),
				records[i].subtype == NVME_DISC_SUBTYPE_NVM ? "" : "  (discovery)");
		json_array_append_new(list, r);
	}
	j = json_pack("{s:s, s:i, s:b, s:I, s:o}", "command", "discover", "exit",
		rc ? EXIT_IO : EXIT_OK, "ok", rc == 0, "total", (json_int_t)total, "records", list);
	if (o->json) {
		json_dumpf(j, stdout, JSON_INDENT(1));
		putchar('\n');
	}
	json_decref(j);
	if (rc < 0 && !o->json)
		fprintf(stderr, "parapet-io: the discovery log cannot be read: %s\n",
			strerror(-rc));
	return rc < 0 ? EXIT_IO : EXIT_OK;
}

/* ---- runs ------------------------------------------------------------------------------------------------------------- */

static int run(struct engine *e, const struct opts *o, struct report *r)
{
	bool changes = o->command == CMD_WRITE || o->command == CMD_TRIM || o->command == CMD_ZERO;
	enum io_exit code = engine_run(e, o->command);

	if (code == EXIT_OK && changes && o->flush)
		code = engine_flush(e);
	if (code == EXIT_OK && o->command == CMD_WRITE && o->verify)
		code = engine_check_written(e);
	r->wire = *nvmf_stats(engine_nvmf(e));
	report_print(r, o, code);
	return code;
}

int main(int argc, char **argv)
{
	static struct report report;
	struct engine *e = NULL;
	struct err err = {0};
	struct opts o;
	int code = opts_parse(argc, argv, &o);

	if (code)
		return code > 0 ? EXIT_OK : EXIT_USAGE;
	code = engine_open(&o, &report, &e, &err);
	if (code != EXIT_OK)
		code = fail((enum io_exit)code, &o, err_text(&err));
	else if (o.command == CMD_IDENTIFY)
		code = identify(e, &o);
	else if (o.command == CMD_DISCOVER)
		code = discover(e, &o);
	else
		code = run(e, &o, &report);
	engine_close(e);
	return code;
}
