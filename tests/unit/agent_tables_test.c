/* SPDX-License-Identifier: BSD-3-Clause */
/* Bodies of tables: to the card and back, compared, explained; protobuf messages as JSON. */
#include "common/base/util.h"
#include "common/rpc/frame.h"
#include "host-agent/agentd/pbjson.h"
#include "host-agent/agentd/tables.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char full[] =
	"{\"node\":1,\"methods\":[\"tape\"],\"uplink\":\"net0\",\"reception\":\"polling\","
	"\"queue\":{\"bytes\":4096,\"count\":3,\"age_us\":5,\"each\":false,\"per_vm\":true,"
	"\"group_commit\":true},"
	"\"vms\":[{\"name\":\"a\",\"number\":1,\"cores\":2,\"memory\":65536,\"host_addr\":16,"
	"\"guest_addr\":32,\"method\":\"tape\",\"mode\":\"method+path\",\"data_flash\":\"f0\","
	"\"intermediate_flash\":\"f1\",\"vf\":\"net_tap0\",\"card_ip\":\"10.0.0.1/24\","
	"\"card_mac\":\"02:00:00:00:00:01\",\"nqn\":\"nqn.x\",\"hosts\":[\"h1\",\"h2\"],"
	"\"bandwidth_mbps\":500,\"iops\":20000,\"burst_ms\":200,\"weight\":300},"
	"{\"name\":\"b\",\"number\":7,\"listen\":\"127.0.0.1:4420\",\"data_flash\":\"f0\"}],"
	"\"devices\":[{\"vm\":\"a\",\"path\":\"/dev/a0\",\"method\":\"block\"},"
	"{\"vm\":\"b\",\"path\":\"/dev/b0\"}],"
	"\"rows\":[{\"vm\":\"a\",\"path\":\"/dev/a\",\"ec\":true,\"host_addr\":16},"
	"{\"vm\":\"a\",\"method\":\"tape\",\"ec\":true},{\"vm\":\"b\",\"ec\":true}]}";

static json_t *body_of(const char *text)
{
	json_t *o = json_loads(text, 0, NULL);

	assert_non_null(o);
	return o;
}

/* Through the very bytes that go to a card. */
static json_t *through_the_wire(const json_t *body)
{
	struct tables_message m;
	struct rpc_arena *arena;
	Parapet__Tables *back;
	uint8_t buf[4096];
	json_t *out;
	size_t len;

	assert_int_equal(tables_message(body, 9, "ann", &m, NULL), 0);
	len = parapet__tables__get_packed_size(&m.tables);
	assert_true(len <= sizeof(buf));
	parapet__tables__pack(&m.tables, buf);
	assert_int_equal(rpc_unpack_tables(buf, len, &back, &arena), 0);
	assert_int_equal(back->version, 9);
	assert_string_equal(back->author, "ann");
	assert_int_equal(tables_from_card(back, &out, NULL), 0);
	tables_message_free(&m);
	rpc_arena_free(arena);
	return out;
}

static void a_body_comes_back_from_the_card_unchanged(void **state)
{
	json_t *body = body_of(full), *back = through_the_wire(body), *differences;
	char *a, *b;

	differences = tables_compare(body, back);
	assert_int_equal(json_array_size(differences), 0);
	a = tables_text(body);
	b = tables_text(back);
	assert_string_equal(a, b);
	free(a);
	free(b);
	json_decref(differences);
	json_decref(back);
	json_decref(body);
}

static void empty_tables_are_tables_too(void **state)
{
	json_t *body = tables_empty(1), *back = through_the_wire(body);
	struct policy_table *t;

	assert_true(json_equal(body, back));
	assert_int_equal(tables_policy(body, 1, NULL, &t, NULL), 0);
	assert_int_equal(t->nvms, 0);
	policy_table_close(t);
	json_decref(body);
	json_decref(back);
}

static void a_card_that_names_unknown_vms_is_not_believed(void **state)
{
	Parapet__Tables t = PARAPET__TABLES__INIT;
	Parapet__Row row = PARAPET__ROW__INIT, *rows[] = {&row};
	Parapet__TableDevice dev = PARAPET__TABLE_DEVICE__INIT, *devices[] = {&dev};
	json_t *out = NULL;
	struct err e;

	t.rows = rows;
	t.n_rows = 1;
	assert_int_equal(tables_from_card(&t, &out, &e), -EPROTO);
	t.n_rows = 0;
	t.devices = devices;
	t.n_devices = 1;
	dev.path = (char *)"/dev/x";
	assert_int_equal(tables_from_card(&t, &out, &e), -EPROTO);
	assert_null(out);
}

static void outcomes_follow_from_the_body(void **state)
{
	json_t *body = body_of(full), *flashes = body_of("[\"f0\",\"f1\"]"), *list;
	struct policy_table *t;
	struct err e;

	assert_int_equal(tables_policy(body, 3, flashes, &t, &e), 0);
	assert_int_equal(policy_table_device(t, 1, "a", "/dev/a0")->outcome, POLICY_PROTECT);
	assert_int_equal(policy_table_device(t, 1, "b", "/dev/b0")->outcome, POLICY_PROTECT);
	list = tables_outcomes(NULL, t);
	assert_int_equal(json_array_size(list), 2);
	assert_true(json_is_null(json_object_get(json_array_get(list, 0), "before")));
	json_decref(list);
	policy_table_close(t);
	json_array_remove(flashes, 1);
	assert_int_equal(tables_policy(body, 3, flashes, &t, &e), -ENOENT);
	assert_string_equal(e.field, "intermediate_flash");
	json_decref(flashes);
	json_decref(body);
}

static void differences_name_what_was_added_removed_and_changed(void **state)
{
	static const struct {
		const char *change, *object;
	} want[] = {{"changed", "vm a"}, {"removed", "device b /dev/b0"},
		{"changed", "row a path /dev/a"}, {"removed", "row b"}, {"added", "row a path /x"},
		{"changed", "uplink"}};
	json_t *a = body_of(full), *b = body_of(full), *list, *rows;

	json_object_set_new(json_array_get(json_object_get(b, "vms"), 0), "cores", json_integer(3));
	json_array_remove(json_object_get(b, "devices"), 1);
	rows = json_object_get(b, "rows");
	json_object_set_new(json_array_get(rows, 0), "ec", json_false());
	json_array_remove(rows, 2);
	json_array_append_new(rows, body_of("{\"vm\":\"a\",\"path\":\"/x\",\"ec\":true}"));
	json_object_set_new(b, "uplink", json_string("net1"));
	list = tables_compare(a, b);
	assert_int_equal(json_array_size(list), ARRAY_LEN(want));
	for (size_t i = 0; i < ARRAY_LEN(want); i++) {
		json_t *o = json_array_get(list, i);

		assert_string_equal(
			json_string_value(json_object_get(o, "change")), want[i].change);
		assert_string_equal(
			json_string_value(json_object_get(o, "object")), want[i].object);
	}
	json_decref(list);
	json_decref(a);
	json_decref(b);
}

static void messages_become_json_by_their_descriptors(void **state)
{
	Parapet__Device d = PARAPET__DEVICE__INIT;
	Parapet__Named n = PARAPET__NAMED__INIT, *blocks[] = {&n};
	uint8_t guid[] = {0xab, 0x01};
	char *text;
	json_t *o;

	d.vm = 3;
	d.path = (char *)"/dev/\xff";
	d.has_outcome = true;
	d.outcome = PARAPET__OUTCOME__OUTCOME_PROTECT;
	d.has_layout = true;
	d.layout = PARAPET__LAYOUT__LAYOUT_FRAGMENTS;
	d.has_size_bytes = true;
	d.size_bytes = 1ull << 40;
	d.has_nguid = true;
	d.nguid = (ProtobufCBinaryData){sizeof(guid), guid};
	d.has_in_tables = true;
	n.name = (char *)"log";
	n.value = 5;
	d.blocks = blocks;
	d.n_blocks = 1;
	o = pbjson_message(&d.base);
	text = json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(text,
		"{\"blocks\":[{\"name\":\"log\",\"value\":5}],\"counters\":[],\"in_tables\":false,"
		"\"layout\":\"fragments\",\"nguid\":\"ab01\",\"outcome\":\"protect\","
		"\"path\":\"/dev/?\",\"size_bytes\":1099511627776,\"tasks\":[],\"vm\":3}");
	free(text);
	json_decref(o);
}

static void oneofs_show_the_member_that_is_set(void **state)
{
	Parapet__Frame f = PARAPET__FRAME__INIT;
	Parapet__Event ev = PARAPET__EVENT__INIT;
	json_t *o;

	f.body_case = PARAPET__FRAME__BODY_EVENT;
	f.event = &ev;
	ev.has_severity = true;
	ev.severity = PARAPET__SEVERITY__WARNING;
	o = pbjson_message(&f.base);
	assert_int_equal(json_object_size(o), 1);
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(o, "event"), "severity")),
		"warning");
	json_decref(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_body_comes_back_from_the_card_unchanged),
		cmocka_unit_test(empty_tables_are_tables_too),
		cmocka_unit_test(a_card_that_names_unknown_vms_is_not_believed),
		cmocka_unit_test(outcomes_follow_from_the_body),
		cmocka_unit_test(differences_name_what_was_added_removed_and_changed),
		cmocka_unit_test(messages_become_json_by_their_descriptors),
		cmocka_unit_test(oneofs_show_the_member_that_is_set),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
