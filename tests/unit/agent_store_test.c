/* SPDX-License-Identifier: BSD-3-Clause */
/* The agent's input checks, its store and its event ring. */
#include "common/base/util.h"
#include "host-agent/agentd/events.h"
#include "host-agent/agentd/store.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct fixture {
	char path[64];
	struct store *s;
	struct err e;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int fd;

	snprintf(f->path, sizeof(f->path), "/tmp/parapet-store.XXXXXX");
	fd = mkstemp(f->path);
	close(fd);
	unlink(f->path);
	*state = f;
	return store_open(f->path, &f->s, &f->e);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char side[80];

	store_close(f->s);
	unlink(f->path);
	snprintf(side, sizeof(side), "%s-wal", f->path);
	unlink(side);
	snprintf(side, sizeof(side), "%s-shm", f->path);
	unlink(side);
	free(f);
	return 0;
}

static json_t *json(const char *text)
{
	json_t *o = json_loads(text, 0, NULL);

	if (!o)
		fail_msg("not JSON: %s", text);
	return o;
}

static void put(struct fixture *f, const struct noun *n, const char *text)
{
	json_t *o = json(text);

	if (store_put(f->s, n, o, &f->e) < 0)
		fail_msg("%s", err_text(&f->e));
	json_decref(o);
}

static size_t count(struct store *s, const struct noun *n, const char *filter)
{
	json_t *o = filter ? json(filter) : NULL, *list;
	size_t size;

	assert_int_equal(store_list(s, n, o, &list, NULL), 0);
	size = json_array_size(list);
	json_decref(list);
	json_decref(o);
	return size;
}

static void objects_come_back_as_they_went_in(void **state)
{
	struct fixture *f = *state;
	json_t *in = json("{\"node\":\"n\",\"name\":\"v\",\"number\":3,\"memory\":4096,"
			  "\"method\":\"block\",\"hosts\":[\"a\",\"b\"]}"),
	       *out;

	assert_int_equal(store_put(f->s, &noun_vm, in, &f->e), 0);
	assert_int_equal(store_get(f->s, &noun_vm, in, &out, &f->e), 0);
	assert_true(json_equal(in, out));
	json_decref(out);
	assert_int_equal(store_put(f->s, &noun_vm, in, &f->e), -EEXIST);
	assert_string_equal(f->e.object, "vm v");
	json_decref(in);
}

static void members_are_set_and_cleared(void **state)
{
	struct fixture *f = *state;
	json_t *key = json("{\"node\":\"n\",\"name\":\"v\"}"),
	       *m = json("{\"cores\":4,\"memory\":null}");
	json_t *out;

	put(f, &noun_vm, "{\"node\":\"n\",\"name\":\"v\",\"number\":3,\"memory\":4096}");
	assert_int_equal(store_set(f->s, &noun_vm, key, m, &f->e), 0);
	assert_int_equal(store_get(f->s, &noun_vm, key, &out, &f->e), 0);
	assert_int_equal(json_integer_value(json_object_get(out, "cores")), 4);
	assert_null(json_object_get(out, "memory"));
	assert_int_equal(json_integer_value(json_object_get(out, "number")), 3);
	json_decref(out);
	json_object_set_new(key, "name", json_string("w"));
	assert_int_equal(store_set(f->s, &noun_vm, key, m, &f->e), -ENOENT);
	assert_int_equal(store_get(f->s, &noun_vm, key, &out, &f->e), -ENOENT);
	assert_int_equal(store_del(f->s, &noun_vm, key, &f->e), -ENOENT);
	json_decref(key);
	json_decref(m);
}

static void a_rollback_leaves_nothing_and_a_reader_sees_only_commits(void **state)
{
	struct fixture *f = *state;
	struct store *reader;

	assert_int_equal(store_open(f->path, &reader, &f->e), 0);
	assert_int_equal(store_begin(f->s, &f->e), 0);
	put(f, &noun_flash, "{\"node\":\"n\",\"name\":\"f0\",\"address\":\"mem:1G\"}");
	assert_int_equal(count(f->s, &noun_flash, NULL), 1);
	assert_int_equal(count(reader, &noun_flash, NULL), 0);
	store_rollback(f->s);
	assert_int_equal(count(f->s, &noun_flash, NULL), 0);
	assert_int_equal(store_begin(f->s, &f->e), 0);
	put(f, &noun_flash, "{\"node\":\"n\",\"name\":\"f0\",\"address\":\"mem:1G\"}");
	assert_int_equal(store_commit(f->s, &f->e), 0);
	assert_int_equal(count(reader, &noun_flash, NULL), 1);
	store_close(reader);
}

static void lists_are_filtered_and_keep_their_order(void **state)
{
	struct fixture *f = *state;
	json_t *filter = json("{\"vm\":\"b\"}"), *list;

	put(f, &noun_row,
		"{\"node\":\"n\",\"vm\":\"b\",\"method\":\"z\",\"path\":\"\",\"ec\":true}");
	put(f, &noun_row,
		"{\"node\":\"n\",\"vm\":\"a\",\"method\":\"y\",\"path\":\"\",\"ec\":true}");
	put(f, &noun_row,
		"{\"node\":\"n\",\"vm\":\"b\",\"method\":\"x\",\"path\":\"\",\"ec\":false}");
	assert_int_equal(store_list(f->s, &noun_row, filter, &list, &f->e), 0);
	assert_int_equal(json_array_size(list), 2);
	assert_string_equal(
		json_string_value(json_object_get(json_array_get(list, 0), "method")), "z");
	assert_true(json_is_false(json_object_get(json_array_get(list, 1), "ec")));
	json_decref(list);
	assert_int_equal(store_clear(f->s, &noun_row, filter, &f->e), 2);
	assert_int_equal(count(f->s, &noun_row, NULL), 1);
	json_object_clear(filter);
	assert_int_equal(store_clear(f->s, &noun_row, filter, &f->e), -EINVAL);
	assert_int_equal(count(f->s, &noun_row, NULL), 1);
	json_decref(filter);
}

static void what_looks_like_sql_is_only_text(void **state)
{
	struct fixture *f = *state;
	json_t *o = json("{\"node\":\"n\",\"name\":\"x'; DROP TABLE vm; --\",\"number\":1}"), *out;

	assert_int_equal(store_put(f->s, &noun_vm, o, &f->e), 0);
	assert_int_equal(store_get(f->s, &noun_vm, o, &out, &f->e), 0);
	assert_true(json_equal(o, out));
	json_decref(out);
	json_decref(o);
}

static void versions_are_kept_with_time_and_author(void **state)
{
	struct fixture *f = *state;
	json_t *v;

	assert_int_equal(store_version_get(f->s, "n", 0, &v, &f->e), -ENOENT);
	assert_int_equal(store_version_add(f->s, "n", 1, "ann", "first", "{\"a\":1}", &f->e), 0);
	assert_int_equal(store_version_add(f->s, "n", 2, "bob", "second", "{\"a\":2}", &f->e), 0);
	assert_int_equal(store_version_add(f->s, "n", 2, "eve", "again", "{}", &f->e), -EIO);
	assert_int_equal(store_version_get(f->s, "n", 0, &v, &f->e), 0);
	assert_int_equal(json_integer_value(json_object_get(v, "version")), 2);
	assert_string_equal(json_string_value(json_object_get(v, "author")), "bob");
	assert_true(json_integer_value(json_object_get(v, "time_ns")) > 0);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(v, "body"), "a")), 2);
	json_decref(v);
	assert_int_equal(store_version_list(f->s, "n", 10, &v, &f->e), 0);
	assert_int_equal(json_array_size(v), 2);
	json_decref(v);
	assert_int_equal(store_version_forget(f->s, "n", &f->e), 0);
	assert_int_equal(store_version_get(f->s, "n", 1, &v, &f->e), -ENOENT);
}

static void the_store_is_private_and_survives_its_handle(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	put(f, &noun_flash, "{\"node\":\"n\",\"name\":\"f0\",\"address\":\"mem:1G\"}");
	store_close(f->s);
	assert_int_equal(store_open(f->path, &f->s, &f->e), 0);
	assert_int_equal(count(f->s, &noun_flash, NULL), 1);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

/* A file as the version before made it: fewer fields. */
static void a_store_of_an_older_format_gets_the_fields_it_has_not(void **state)
{
	struct fixture *f = *state;
	json_t *key = json("{\"node\":\"n\"}"), *m = json("{\"space_warning\":70}"), *out;
	sqlite3 *db;

	put(f, &noun_pool, "{\"node\":\"n\",\"ec\":\"4+2\",\"created\":true}");
	store_close(f->s);
	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db,
				 "ALTER TABLE pool DROP COLUMN space_warning;"
				 "ALTER TABLE flash DROP COLUMN change; PRAGMA user_version = 1",
				 NULL, NULL, NULL),
		SQLITE_OK);
	sqlite3_close(db);
	assert_int_equal(store_open(f->path, &f->s, &f->e), 0);
	assert_int_equal(store_get(f->s, &noun_pool, key, &out, &f->e), 0);
	assert_string_equal(json_string_value(json_object_get(out, "ec")), "4+2");
	assert_null(json_object_get(out, "space_warning"));
	json_decref(out);
	assert_int_equal(store_set(f->s, &noun_pool, key, m, &f->e), 0);
	assert_int_equal(store_get(f->s, &noun_pool, key, &out, &f->e), 0);
	assert_int_equal(json_integer_value(json_object_get(out, "space_warning")), 70);
	json_decref(out);
	put(f, &noun_flash,
		"{\"node\":\"n\",\"name\":\"f0\",\"address\":\"mem:1G\",\"change\":\"add\"}");
	json_decref(key);
	json_decref(m);
}

static void a_file_that_is_no_store_is_refused(void **state)
{
	struct fixture *f = *state;
	struct store *s = NULL;
	char path[] = "/tmp/parapet-nostore.XXXXXX";
	int fd = mkstemp(path);

	assert_int_equal(write(fd, "this is not a database, is it? ......", 37), 37);
	close(fd);
	assert_true(store_open(path, &s, &f->e) < 0);
	assert_null(s);
	unlink(path);
	assert_true(store_open("/tmp/no/such/folder/x.db", &s, &f->e) < 0);
}

/* ---- schema ------------------------------------------------------------------------------------------------- */

static int check(const struct noun *n, const char *text, enum schema_for what, struct err *e)
{
	json_t *in = json(text), *out = NULL;
	int rc = schema_check(n, in, what, "thing", &out, e);

	assert_true((rc == 0) == (out != NULL));
	json_decref(out);
	json_decref(in);
	return rc;
}

static void times_have_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t s;
	} good[] = {{"0", 0}, {"90", 90}, {"90s", 90}, {"30m", 1800}, {"12h", 43200},
		{"7d", 604800}, {"2w", 1209600}};
	static const char *const bad[] = {"", "d", "-1", "7 d", "7dd", "1y", "0x10", "99999999999"};
	uint64_t s;

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(schema_parse_seconds(good[i].text, &s), 0);
		assert_int_equal(s, good[i].s);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(schema_parse_seconds(bad[i], &s), -EINVAL);
}

static void values_are_normalized(void **state)
{
	json_t *in = json("{\"node\":\"n\",\"vm\":\"v\",\"path\":\"/dev/a\",\"size\":\"10G\","
			  "\"layout\":\"fragments\",\"method\":null}"),
	       *out;

	assert_int_equal(schema_check(&noun_device, in, SCHEMA_CREATE, "d", &out, NULL), 0);
	assert_int_equal(json_integer_value(json_object_get(out, "size")), 10ll << 30);
	assert_null(json_object_get(out, "method"));
	json_decref(out);
	json_decref(in);
	in = json("{\"node\":\"n\",\"vm\":\"v\",\"ec\":\"on\",\"host_addr\":\"0x10\"}");
	assert_int_equal(schema_check(&noun_row, in, SCHEMA_CREATE, "d", &out, NULL), 0);
	assert_true(json_is_true(json_object_get(out, "ec")));
	assert_int_equal(json_integer_value(json_object_get(out, "host_addr")), 16);
	json_decref(out);
	json_decref(in);
}

static void wrong_values_are_refused_with_field_and_choice(void **state)
{
	static const struct {
		const struct noun *n;
		const char *text, *field;
	} bad[] = {
		{&noun_vm, "{\"name\":\"\"}", "name"},
		{&noun_vm, "{\"name\":\"a b\"}", "name"},
		{&noun_vm, "{\"name\":7}", "name"},
		{&noun_vm, "{\"name\":\"a\",\"cores\":0}", "cores"},
		{&noun_vm, "{\"name\":\"a\",\"cores\":-1}", "cores"},
		{&noun_vm, "{\"name\":\"a\",\"cores\":1.5}", "cores"},
		{&noun_vm, "{\"name\":\"a\",\"cores\":\"4x\"}", "cores"},
		{&noun_vm, "{\"name\":\"a\",\"memory\":\"99999999T\"}", "memory"},
		{&noun_vm, "{\"name\":\"a\",\"mode\":\"meth\"}", "mode"},
		{&noun_vm, "{\"name\":\"a\",\"mode\":\"\"}", "mode"},
		{&noun_vm, "{\"name\":\"a\",\"mode\":\"method|path\"}", "mode"},
		{&noun_vm, "{\"name\":\"a\",\"hosts\":\"x\"}", "hosts"},
		{&noun_vm, "{\"name\":\"a\",\"hosts\":[1]}", "hosts"},
		{&noun_vm, "{\"name\":\"a\",\"nqn\":\"a\\\"b\"}", "nqn"},
		{&noun_vm, "{\"name\":\"a\",\"listen\":\"1.2.3.4:0\"}", "listen"},
		{&noun_vm, "{\"name\":\"a\",\"listen\":\"::1:4420\"}", "listen"},
		{&noun_vm, "{\"name\":\"a\",\"vhost\":\"run/v\"}", "vhost"},
		{&noun_vm, "{\"name\":\"a\",\"vhost\":\"/run/..\"}", "vhost"},
		{&noun_vm, "{\"name\":\"a\",\"card_ip\":\"10.0.0.1\"}", "card_ip"},
		{&noun_vm, "{\"name\":\"a\",\"card_mac\":\"02:00:00:00:00\"}", "card_mac"},
		{&noun_vm, "{\"name\":\"a\",\"number\":4}", ""},
		{&noun_vm, "{\"name\":\"a\",\"colour\":4}", ""},
		{&noun_flash, "{\"name\":\"a\"}", "address"},
		{&noun_flash, "{\"name\":\"a\",\"address\":\"/dev/sda\"}", "address"},
		{&noun_flash, "{\"name\":\"a\",\"address\":\"nvme+tcp://10.0.0.2/nqn.x\"}",
			"address"},
		{&noun_flash, "{\"name\":\"a\",\"address\":\"nvme+tcp://peer/nqn.x#1\"}",
			"address"},
		{&noun_flash, "{\"name\":\"a\",\"address\":\"nvme+rdma://10.0.0.2/nqn.x#1?ddgst\"}",
			"address"},
		{&noun_pool, "{\"ec\":\"0+1\"}", "ec"},
		{&noun_pool, "{\"ec\":\"25+1\"}", "ec"},
		{&noun_pool, "{\"ec\":\"4+9\"}", "ec"},
		{&noun_pool, "{\"ec\":\"4+2 \"}", "ec"},
		{&noun_node, "{\"name\":\"a\",\"address\":\"unix:x\"}", "address"},
		{&noun_node, "{\"name\":\"a\",\"address\":\"unix:/x\",\"schedule\":\"at 24:00\"}",
			"schedule"},
		{&noun_row, "{\"vm\":\"a\",\"ec\":2}", "ec"},
		{&noun_row, "{\"vm\":\"a\"}", "ec"},
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err e = {0};

		if (check(bad[i].n, bad[i].text, SCHEMA_CREATE, &e) != -EINVAL)
			fail_msg("%s was taken", bad[i].text);
		assert_string_equal(e.object, "thing");
		if (strcmp(e.field, bad[i].field) != 0)
			fail_msg("%s: field %s", bad[i].text, e.field);
		assert_true(strstr(e.reason, "allowed: ") || strstr(e.reason, "is needed"));
	}
}

static void null_clears_only_what_may_be_absent(void **state)
{
	struct err e;

	assert_int_equal(check(&noun_vm, "{\"cores\":null}", SCHEMA_CHANGE, &e), 0);
	assert_int_equal(check(&noun_vm, "{\"name\":null}", SCHEMA_CHANGE, &e), -EINVAL);
	assert_int_equal(check(&noun_pool, "{\"ec\":null}", SCHEMA_CHANGE, &e), -EINVAL);
}

static void schedules_are_read(void **state)
{
	struct schedule s;

	assert_int_equal(schema_parse_schedule("realtime", &s), 0);
	assert_int_equal(s.kind, SCHEDULE_REALTIME);
	assert_int_equal(schema_parse_schedule("every 60", &s), 0);
	assert_int_equal(s.seconds, 60);
	assert_int_equal(schema_parse_schedule("at 03:30", &s), 0);
	assert_int_equal(s.kind, SCHEDULE_AT);
	assert_int_equal(s.seconds, 12600);
	assert_int_equal(schema_parse_schedule("every 0", &s), -EINVAL);
	assert_int_equal(schema_parse_schedule("every 60s", &s), -EINVAL);
	assert_int_equal(schema_parse_schedule("at 3:60", &s), -EINVAL);
	assert_int_equal(schema_parse_schedule("", &s), -EINVAL);
}

/* ---- events --------------------------------------------------------------------------------------------------- */

static void the_ring_keeps_the_newest_events_in_order(void **state)
{
	struct events *ev;
	uint64_t last;
	json_t *list;

	assert_int_equal(events_open(4, &ev), 0);
	assert_int_equal(events_after(ev, 0, 0, &list, &last), 0);
	json_decref(list);
	for (int i = 1; i <= 6; i++)
		events_add(ev, "n", &(struct event_text){"info", "k", "o", "\xff\n", 0});
	assert_int_equal(events_after(ev, 0, 0, &list, &last), 4);
	assert_int_equal(last, 6);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "seq")), 3);
	assert_string_equal(
		json_string_value(json_object_get(json_array_get(list, 0), "text")), "??");
	json_decref(list);
	assert_int_equal(events_after(ev, 5, 0, &list, &last), 1);
	json_decref(list);
	assert_int_equal(events_after(ev, 6, 1, &list, &last), 0);
	json_decref(list);
	events_stop(ev);
	assert_int_equal(events_after(ev, 6, 100000, &list, &last), 0);
	json_decref(list);
	events_close(ev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(objects_come_back_as_they_went_in, setup, teardown),
		cmocka_unit_test_setup_teardown(members_are_set_and_cleared, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_rollback_leaves_nothing_and_a_reader_sees_only_commits, setup, teardown),
		cmocka_unit_test_setup_teardown(
			lists_are_filtered_and_keep_their_order, setup, teardown),
		cmocka_unit_test_setup_teardown(what_looks_like_sql_is_only_text, setup, teardown),
		cmocka_unit_test_setup_teardown(
			versions_are_kept_with_time_and_author, setup, teardown),
		cmocka_unit_test_setup_teardown(
			the_store_is_private_and_survives_its_handle, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_store_of_an_older_format_gets_the_fields_it_has_not, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_file_that_is_no_store_is_refused, setup, teardown),
		cmocka_unit_test(times_have_units),
		cmocka_unit_test(values_are_normalized),
		cmocka_unit_test(wrong_values_are_refused_with_field_and_choice),
		cmocka_unit_test(null_clears_only_what_may_be_absent),
		cmocka_unit_test(schedules_are_read),
		cmocka_unit_test(the_ring_keeps_the_newest_events_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
