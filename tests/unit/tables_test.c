/* SPDX-License-Identifier: BSD-3-Clause */
/* Documents, snapshots and the state directory of the card. */
#include "dpu/tables/state.h"
#include "dpu/tables/tables.h"

#include "common/base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static struct shard *virtual_shard(void)
{
	struct shard *sh;

	assert_int_equal(
		shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 1}, &sh), 0);
	return sh;
}

/* A table of two VMs on two flash devices; each test changes what it is about. */
struct sample {
	Parapet__Tables pb;
	Parapet__Vm vm[2], *vms[2];
	Parapet__TableDevice dev[2], *devs[2];
	Parapet__Row row[2], *rows[2];
};

static const char *const flash_names[] = {"f0", "f1"};
static const struct tables_env env = {.flashes = flash_names, .nflashes = 2};

static void sample_init(struct sample *s)
{
	parapet__tables__init(&s->pb);
	s->pb.version = 3;
	for (int i = 0; i < 2; i++) {
		parapet__vm__init(&s->vm[i]);
		s->vm[i].vm = (uint32_t)i + 1;
		s->vm[i].name = (char *)(i ? "db1" : "web1");
		s->vm[i].data_flash = (char *)"f0";
		s->vm[i].inter_flash = (char *)"f1";
		s->vm[i].listen = (char *)(i ? "[::1]:4421" : "127.0.0.1:4420");
		s->vms[i] = &s->vm[i];
		parapet__table_device__init(&s->dev[i]);
		s->dev[i].vm = 1;
		s->dev[i].path = (char *)(i ? "/dev/normal0" : "/dev/ecpool0");
		s->devs[i] = &s->dev[i];
		parapet__row__init(&s->row[i]);
		s->row[i].vm = 1;
		s->row[i].path = (char *)(i ? "/dev/normal" : "/dev/ecpool");
		s->row[i].ec = i == 0;
		s->rows[i] = &s->row[i];
	}
	s->pb.n_vms = s->pb.n_devices = s->pb.n_rows = 2;
	s->pb.vms = s->vms;
	s->pb.devices = s->devs;
	s->pb.rows = s->rows;
}

/* The document as it would come off the wire. */
static struct tables_doc *sample_doc(const struct sample *s)
{
	size_t n = parapet__tables__get_packed_size(&s->pb);
	autofree uint8_t *p = malloc(n);
	struct rpc_arena *arena;
	struct tables_doc *doc = NULL;
	Parapet__Tables *pb;
	struct err e = {0};

	parapet__tables__pack(&s->pb, p);
	assert_int_equal(rpc_unpack_tables(p, n, &pb, &arena), 0);
	if (tables_doc_build(pb, arena, &env, &doc, &e) < 0)
		fail_msg("%s", err_text(&e));
	return doc;
}

static void a_snapshot_knows_the_outcome_of_every_volume(void **state)
{
	struct tables_volume vols[300];
	struct shard *sh = virtual_shard();
	struct sample s;
	struct tables_doc *doc;
	struct tables *t;

	sample_init(&s);
	doc = sample_doc(&s);
	assert_int_equal(tables_open(sh, &t), 0);
	assert_int_equal(tables_current(t)->version, 0);
	assert_null(tables_find(tables_current(t), 5));
	for (uint32_t i = 0; i < ARRAY_LEN(vols); i++)
		vols[i] = (struct tables_volume){.id = 1 + i * 7, .vm = 2, .path = "/dev/other"};
	vols[10].vm = vols[20].vm = 1;
	vols[10].path = "/dev/ecpool0";
	vols[20].path = "/dev/normal0";
	assert_int_equal(tables_publish(t, doc, vols, ARRAY_LEN(vols)), 0);
	for (uint32_t i = 0; i < ARRAY_LEN(vols); i++) {
		const struct tables_entry *e = tables_find(tables_current(t), vols[i].id);

		assert_non_null(e);
		assert_int_equal(e->vm, vols[i].vm);
		/* mode path: a path without EC is intermediate; a volume the table does not name is plain */
		assert_int_equal(e->outcome, i == 10   ? IO_PROTECT
					     : i == 20 ? IO_INTERMEDIATE
						       : IO_PLAIN);
	}
	assert_null(tables_find(tables_current(t), 3));
	tables_doc_put(doc);
	tables_close(t);
	shard_close(sh);
}

static void a_replaced_snapshot_lives_until_the_shard_has_come_round(void **state)
{
	struct shard *sh = virtual_shard();
	const struct tables_snapshot *old;
	struct tables_doc *doc;
	struct tables *t;
	struct sample s;

	sample_init(&s);
	doc = sample_doc(&s);
	assert_int_equal(tables_open(sh, &t), 0);
	assert_int_equal(
		tables_publish(t, doc, &(struct tables_volume){1, 1, "/dev/ecpool0"}, 1), 0);
	while (shard_run_once(sh))
		;
	old = tables_current(t);
	assert_int_equal(tables_publish(t, doc, NULL, 0), 0);
	assert_ptr_not_equal(old, tables_current(t));
	assert_int_equal(t->retiring, 1);
	/* still readable: a use after free would be seen under the sanitizer */
	assert_int_equal(tables_find(old, 1)->outcome, IO_PROTECT);
	assert_null(tables_find(tables_current(t), 1));
	while (shard_run_once(sh))
		;
	assert_int_equal(t->retiring, 0);
	tables_doc_put(doc);
	tables_close(t);
	shard_close(sh);
}

struct bad {
	const char *what;
	void (*spoil)(struct sample *s);
	int rc;
	const char *field;
};

static void no_version(struct sample *s)
{
	s->pb.version = 0;
}
static void vm_zero(struct sample *s)
{
	s->vm[0].vm = 0;
}
static void unknown_flash(struct sample *s)
{
	s->vm[0].data_flash = (char *)"f9";
}
static void same_flash(struct sample *s)
{
	s->vm[1].inter_flash = (char *)"f0";
}
static void unknown_method(struct sample *s)
{
	s->row[0].method = (char *)"telepathy";
}
static void unknown_vm_in_row(struct sample *s)
{
	s->row[1].vm = 77;
}
static void unknown_vm_in_device(struct sample *s)
{
	s->dev[1].vm = 77;
}
static void contradiction(struct sample *s)
{
	s->row[1].path = s->row[0].path;
}
static void duplicate_row(struct sample *s)
{
	s->row[1].path = s->row[0].path;
	s->row[1].ec = s->row[0].ec;
}
static void duplicate_number(struct sample *s)
{
	s->vm[1].vm = 1;
}
static void duplicate_listen(struct sample *s)
{
	s->vm[1].listen = s->vm[0].listen;
}
static void duplicate_nqn(struct sample *s)
{
	s->vm[0].nqn = s->vm[1].nqn = (char *)"nqn.2026-01.org.example:a";
}
static void mode_of_the_future(struct sample *s)
{
	s->vm[0].has_mode = true;
	s->vm[0].mode = (Parapet__Mode)9;
}
static void reception_of_the_future(struct sample *s)
{
	s->pb.has_reception = true;
	s->pb.reception = (Parapet__Reception)9;
}
static void listen_without_port(struct sample *s)
{
	s->vm[0].listen = (char *)"127.0.0.1";
}
static void listen_by_name(struct sample *s)
{
	s->vm[0].listen = (char *)"localhost:4420";
}
static void listen_and_port(struct sample *s)
{
	s->vm[0].port = (char *)"net_memif0";
}
static void port_without_ip(struct sample *s)
{
	s->vm[0].listen = NULL;
	s->vm[0].port = (char *)"net_memif0";
}
static void ip_is_the_network(struct sample *s)
{
	port_without_ip(s);
	s->vm[0].card_ip = (char *)"10.0.0.0/24";
}
static void multicast_mac(struct sample *s)
{
	port_without_ip(s);
	s->vm[0].card_ip = (char *)"10.0.0.1/24";
	s->vm[0].card_mac = (char *)"01:00:00:00:00:01";
}
static void vhost_relative(struct sample *s)
{
	s->vm[0].vhost = (char *)"run/vhost";
}
static void vhost_with_dots(struct sample *s)
{
	s->vm[0].vhost = (char *)"/run/../etc";
}
static void vhost_too_long(struct sample *s)
{
	static char path[100] = "/";

	memset(path + 1, 'x', 90);
	s->vm[0].vhost = path;
}
static void bad_nqn(struct sample *s)
{
	s->vm[0].nqn = (char *)"storage";
}
static void bad_path(struct sample *s)
{
	s->dev[0].path = (char *)"dev x";
}
static void bad_name(struct sample *s)
{
	s->vm[0].name = (char *)"a/b";
}

static void a_wrong_table_is_refused_with_its_field(void **state)
{
	static const struct bad bad[] = {
		{"no version", no_version, -EINVAL, "version"},
		{"vm zero", vm_zero, -EINVAL, "vm"},
		{"unknown flash", unknown_flash, -ENOENT, "data_flash"},
		{"same flash", same_flash, -EINVAL, "intermediate_flash"},
		{"unknown method", unknown_method, -ENOENT, "method"},
		{"unknown vm in a row", unknown_vm_in_row, -ENOENT, "vm"},
		{"unknown vm in a device", unknown_vm_in_device, -ENOENT, "vm"},
		{"contradiction", contradiction, -EEXIST, NULL},
		{"duplicate row", duplicate_row, -EEXIST, NULL},
		{"duplicate number", duplicate_number, -EEXIST, "vm"},
		{"duplicate listen", duplicate_listen, -EEXIST, "listen"},
		{"duplicate nqn", duplicate_nqn, -EEXIST, "nqn"},
		{"mode of the future", mode_of_the_future, -EINVAL, "mode"},
		{"reception of the future", reception_of_the_future, -EINVAL, "reception"},
		{"listen without port", listen_without_port, -EINVAL, "listen"},
		{"listen by name", listen_by_name, -EINVAL, "listen"},
		{"listen and port", listen_and_port, -EINVAL, "listen"},
		{"port without ip", port_without_ip, -EINVAL, "card_ip"},
		{"ip is the network", ip_is_the_network, -EINVAL, "card_ip"},
		{"multicast mac", multicast_mac, -EINVAL, "card_mac"},
		{"vhost relative", vhost_relative, -EINVAL, "vhost"},
		{"vhost with dots", vhost_with_dots, -EINVAL, "vhost"},
		{"vhost too long", vhost_too_long, -EINVAL, "vhost"},
		{"bad nqn", bad_nqn, -EINVAL, "nqn"},
		{"bad path", bad_path, -EINVAL, "path"},
		{"bad name", bad_name, -EINVAL, "name"},
	};
	struct tables_doc *doc;
	struct sample s;
	struct err e;

	sample_init(&s);
	assert_int_equal(tables_doc_build(&s.pb, NULL, &env, &doc, NULL), 0);
	tables_doc_put(doc);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		int rc;

		sample_init(&s);
		bad[i].spoil(&s);
		memset(&e, 0, sizeof(e));
		rc = tables_doc_build(&s.pb, NULL, &env, &doc, &e);
		if (rc != bad[i].rc || (bad[i].field && strcmp(e.field, bad[i].field)))
			fail_msg("%s: %d, field '%s': %s", bad[i].what, rc, e.field, err_text(&e));
		assert_true(e.object[0] && e.reason[0]);
	}
}

static void a_way_in_is_read_from_its_row(void **state)
{
	struct tables_access a;
	struct sample s;

	sample_init(&s);
	assert_int_equal(tables_access_parse(&s.vm[1], &a, NULL), 0);
	assert_int_equal(a.kind, TABLES_ACCESS_SOCKET);
	assert_string_equal(a.addr, "::1");
	assert_int_equal(a.tcp_port, 4421);
	port_without_ip(&s);
	s.vm[0].card_ip = (char *)"10.1.2.3/16";
	s.vm[0].card_mac = (char *)"02:00:00:aB:00:01";
	assert_int_equal(tables_access_parse(&s.vm[0], &a, NULL), 0);
	assert_int_equal(a.kind, TABLES_ACCESS_PORT);
	assert_int_equal(a.card_ip, 0x0a010203);
	assert_int_equal(a.prefix_len, 16);
	assert_true(a.mac_set);
	assert_int_equal(a.card_mac[3], 0xab);
}

/* ---- the state directory ------------------------------------------------------------------------------------- */

static void temp_dir(char *path, size_t len)
{
	snprintf(path, len, "/tmp/parapet-state-test.%d", (int)getpid());
}

static void remove_dir(const char *dir)
{
	static const char *const names[] = {"lock", "tables", "tables.new", "tables.damaged", "x"};
	char path[128];

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(dir), 0);
}

static void a_document_comes_back_and_a_second_owner_is_refused(void **state)
{
	struct state_dir *d, *second;
	struct err e = {0};
	char dir[64];
	void *body;
	size_t n;

	temp_dir(dir, sizeof(dir));
	assert_int_equal(state_open(dir, &d, &e), 0);
	assert_int_equal(state_open(dir, &second, &e), -EBUSY);
	assert_int_equal(state_load(d, "tables", &body, &n, &e), -ENOENT);
	assert_int_equal(state_save(d, "tables", "first", 5, &e), 0);
	assert_int_equal(state_save(d, "tables", "second", 6, &e), 0);
	state_close(d);
	assert_int_equal(state_open(dir, &d, &e), 0);
	assert_int_equal(state_load(d, "tables", &body, &n, &e), 0);
	assert_int_equal(n, 6);
	assert_memory_equal(body, "second", 6);
	free(body);
	state_close(d);
	remove_dir(dir);
}

static void a_damaged_document_is_noticed_wherever_it_is_damaged(void **state)
{
	char dir[64], path[128];
	struct err e = {0};
	struct state_dir *d;
	uint8_t byte;
	void *body;
	size_t n;
	int fd;

	temp_dir(dir, sizeof(dir));
	snprintf(path, sizeof(path), "%s/tables", dir);
	assert_int_equal(state_open(dir, &d, &e), 0);
	for (off_t at = 0; at < 32 + 4; at++) {
		assert_int_equal(state_save(d, "tables", "body", 4, &e), 0);
		fd = open(path, O_RDWR);
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		close(fd);
		assert_int_equal(state_load(d, "tables", &body, &n, &e), -EUCLEAN);
		assert_int_equal(state_load(d, "tables", &body, &n, &e), -ENOENT);
	}
	for (off_t len = 0; len < 36; len++) {
		assert_int_equal(state_save(d, "tables", "body", 4, &e), 0);
		assert_int_equal(truncate(path, len), 0);
		assert_int_equal(state_load(d, "tables", &body, &n, &e), -EUCLEAN);
	}
	state_close(d);
	remove_dir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_snapshot_knows_the_outcome_of_every_volume),
		cmocka_unit_test(a_replaced_snapshot_lives_until_the_shard_has_come_round),
		cmocka_unit_test(a_wrong_table_is_refused_with_its_field),
		cmocka_unit_test(a_way_in_is_read_from_its_row),
		cmocka_unit_test(a_document_comes_back_and_a_second_owner_is_refused),
		cmocka_unit_test(a_damaged_document_is_noticed_wherever_it_is_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
