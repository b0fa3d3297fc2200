/* SPDX-License-Identifier: BSD-3-Clause */
/* Reservations of a namespace: who may write, what they prove of a target's cache, and how the devices of a host share one. */
#include "tests/unit/nvmf_devbed.h"

#include <pthread.h>
#include <stdatomic.h>

static void a_claim_keeps_others_out_until_it_is_given_back(void **state)
{
	struct err err = {0};

	peer_add(0, (struct peer_cfg){.reservations = true});
	d = dev_open(0);
	other = dev_open(0);
	assert_int_equal(nvmf_dev_claim(d, 0, false, &err), -EINVAL);
	assert_int_equal(nvmf_dev_claim(d, 0x11, false, &err), 0);
	assert_int_equal(nvmf_dev_claim(d, 0x11, false, &err), 0);
	assert_int_equal(ns->type, NVME_RESV_WRITE_EXCLUSIVE);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	assert_int_equal(wait_for(submit_to(other, NVMF_DEV_WRITE, 0, 2, true)), NVMF_DEV_FENCED);
	assert_int_equal(wait_for(submit_to(other, NVMF_DEV_READ, 0, 2, true)), NVMF_DEV_OK);
	assert_int_equal(nfenced, 1);
	assert_int_equal(nvmf_dev_claim(other, 0x22, false, &err), -EBUSY);
	assert_non_null(strstr(err.reason, "0x11"));
	assert_int_equal(nvmf_dev_unclaim(d, &err), 0);
	assert_int_equal(nvmf_dev_claim(other, 0x22, false, &err), 0);
	assert_true(holds(0, 1));
}

static void the_former_owner_is_fenced_by_preemption(void **state)
{
	struct err err = {0};

	peer_add(0, (struct peer_cfg){.reservations = true});
	d = dev_open(0);
	other = dev_open(0);
	assert_int_equal(nvmf_dev_claim(d, 0x11, false, &err), 0);
	assert_int_equal(nvmf_dev_claim(other, 0x22, true, &err), 0);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_FENCED);
	assert_int_equal(run(NVMF_DEV_WRITE_ZEROES, 0, 1), NVMF_DEV_FENCED);
	assert_int_equal(nfenced, 1);
	assert_true(holds(0, 0));
	/* Coming back does not make it the owner again. */
	lose_first();
	assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_FENCED);
	assert_int_equal(wait_for(submit_to(other, NVMF_DEV_WRITE, 0, 2, true)), NVMF_DEV_OK);
	assert_int_equal(nfenced, 1);
}

static bool is_claimed(void *arg)
{
	return ns->type == NVME_RESV_WRITE_EXCLUSIVE;
}

static void a_claim_the_target_has_forgotten_is_made_again(void **state)
{
	struct err err = {0};

	peer_add(0, (struct peer_cfg){.reservations = true});
	d = dev_open(0);
	assert_int_equal(nvmf_dev_claim(d, 0x11, false, &err), 0);
	memset(ns->reg, 0, sizeof(ns->reg));
	ns->type = NVME_RESV_NONE;
	lose_first();
	assert_int_equal(shard_wait(sh, is_claimed, NULL, WAIT_NS), 0);
	assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	assert_int_equal(nfenced, 0);
}

/* What a loss of power does to it. */
static void forget_claims(void)
{
	memset(ns->reg, 0, sizeof(ns->reg));
	ns->type = NVME_RESV_NONE;
}

static void claim(void)
{
	struct err err = {0};

	if (nvmf_dev_claim(d, 0x11, false, &err) < 0)
		fail_msg("%s", err_text(&err));
}

static void a_claim_that_is_still_there_proves_the_cache(void **state)
{
	peer_add(0, (struct peer_cfg){.reservations = true, .no_ptpl = true});
	d = dev_open(0);
	claim();
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	away_for(100);
	away_for(100);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_OK);
	assert_int_equal(peers[0]->nflushes, 1);
}

static void a_claim_the_target_has_forgotten_proves_nothing(void **state)
{
	peer_add(0, (struct peer_cfg){.reservations = true, .no_ptpl = true});
	d = dev_open(0);
	claim();
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	forget_claims();
	away_for(100);
	assert_true(is_claimed(NULL)); /* made again */
	lose_first(); /* that it is there now says nothing of what was before it */
	assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_GONE);
	assert_int_equal(peers[0]->nflushes, 0);
}

static void a_claim_younger_than_the_write_proves_nothing(void **state)
{
	peer_add(0, (struct peer_cfg){.reservations = true, .no_ptpl = true});
	d = dev_open(0);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	claim();
	away_for(100);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_GONE);
	assert_int_equal(peers[0]->nflushes, 0);
}

static void a_claim_that_survives_a_loss_of_power_proves_nothing(void **state)
{
	peer_add(0, (struct peer_cfg){.reservations = true});
	d = dev_open(0);
	claim();
	assert_true(ns->ptpl);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	away_for(100);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_GONE);
	assert_int_equal(peers[0]->nflushes, 0);
}

/* The path that comes back first registers the key again: the next one finds it. */
static void a_claim_made_again_on_another_path_proves_nothing(void **state)
{
	peer_add(0, (struct peer_cfg){.reservations = true, .no_ptpl = true});
	peer_add(1, (struct peer_cfg){.reservations = true, .no_ptpl = true});
	d = dev_open(0);
	claim();
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	peer_down(peers[1]);
	peer_down(peers[0]);
	while (is_up(d, 0) || is_up(d, 1))
		shard_run_once(sh);
	forget_claims();
	assert_int_equal(peer_up(peers[0]), 0);
	assert_int_equal(shard_wait(sh, is_claimed, NULL, WAIT_NS), 0);
	assert_int_equal(peer_up(peers[1]), 0);
	assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_GONE);
	assert_int_equal(peers[0]->nflushes + peers[1]->nflushes, 0);
}

/* Two devices of one host, as slices are. */
static void open_two(void)
{
	hostid = host;
	only_peer = 0;
	d = dev_open(0);
	only_peer = peers[1] ? 1 : 0;
	other = dev_open(0);
}

static unsigned int registered(void)
{
	unsigned int n = 0;

	for (size_t i = 0; i < ARRAY_LEN(ns->reg); i++)
		n += ns->reg[i].key != 0;
	return n;
}

static void the_devices_of_a_host_share_its_claim(void **state)
{
	struct err err = {0};

	peer_add(0, (struct peer_cfg){.reservations = true});
	open_two();
	assert_int_equal(nvmf_dev_claim(d, 0x11, false, &err), 0);
	assert_int_equal(nvmf_dev_claim(other, 0x22, true, &err), -EBUSY);
	assert_non_null(strstr(err.reason, "another key"));
	assert_int_equal(nvmf_dev_claim(other, 0x11, false, &err), 0);
	assert_int_equal(registered(), 1);
	assert_int_equal(wait_for(submit_to(other, NVMF_DEV_WRITE, 0, 2, true)), NVMF_DEV_OK);
	assert_int_equal(nvmf_dev_unclaim(d, &err), 0);
	assert_true(is_claimed(NULL));
	assert_int_equal(nvmf_dev_unclaim(d, &err), 0); /* has none any more */
	assert_true(is_claimed(NULL));
	assert_int_equal(nvmf_dev_claim(d, 0x11, false, &err), 0);
	nvmf_dev_close(other); /* without giving it back */
	other = NULL;
	assert_true(is_claimed(NULL));
	assert_int_equal(nvmf_dev_claim(d, 0x33, false, &err), 0); /* alone again */
	assert_int_equal(nvmf_dev_unclaim(d, &err), 0);
	assert_false(is_claimed(NULL));
	assert_int_equal(registered(), 0);
	assert_int_equal(nfenced, 0);
}

static void a_claim_made_again_by_another_device_proves_nothing(void **state)
{
	struct err err = {0};

	peer_add(0, (struct peer_cfg){.reservations = true, .no_ptpl = true});
	peer_add(1, (struct peer_cfg){.reservations = true, .no_ptpl = true});
	open_two();
	claim();
	assert_int_equal(nvmf_dev_claim(other, 0x11, false, &err), 0);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	peer_down(peers[1]);
	peer_down(peers[0]);
	while (is_up(d, 0) || is_up(other, 0))
		shard_run_once(sh);
	forget_claims();
	assert_int_equal(peer_up(peers[1]), 0);
	assert_int_equal(shard_wait(sh, is_claimed, NULL, WAIT_NS), 0);
	assert_int_equal(peer_up(peers[0]), 0);
	assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_GONE);
	assert_int_equal(peers[0]->nflushes + peers[1]->nflushes, 0);
	assert_int_equal(nfenced, 0);
}

static void a_claim_that_is_still_there_proves_the_cache_of_all_its_devices(void **state)
{
	struct err err = {0};

	peer_add(0, (struct peer_cfg){.reservations = true, .no_ptpl = true});
	open_two();
	claim();
	assert_int_equal(nvmf_dev_claim(other, 0x11, false, &err), 0);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	assert_int_equal(wait_for(submit_to(other, NVMF_DEV_WRITE, 8, 2, true)), NVMF_DEV_OK);
	away_for(100);
	assert_int_equal(shard_wait(sh, all_up, other, WAIT_NS), 0);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_OK);
	assert_int_equal(wait_for(submit_to(other, NVMF_DEV_FLUSH, 0, 0, true)), NVMF_DEV_OK);
	assert_int_equal(peers[0]->nflushes, 2);
}

/* ---- threads: a shard each, as slices have ------------------------------------------------------------- */

struct worker {
	pthread_t thread;
	struct shard *sh;
	char why[200];
	unsigned int seed;
	atomic_bool over;
};

static bool fails(struct worker *w, const char *what, int rc, const struct err *err)
{
	if (rc < 0)
		snprintf(w->why, sizeof(w->why), "%s: %s", what, err_text(err));
	return rc < 0;
}

/* A life of a device: claims, and at the end gives it back or just goes. */
static bool live(struct worker *w, bool gives_back)
{
	struct nvmf_dev_cfg cfg = {
		.ctrl = {.subnqn = PEER_NQN, .hostid = host, .depth = 8}, .npaths = 1, .nsid = 1};
	struct nvmf_dev *dev = NULL;
	struct err err = {0};
	bool bad;

	snprintf(cfg.paths[0].host, sizeof(cfg.paths[0].host), "127.0.0.1");
	cfg.paths[0].port = peers[0]->port;
	bad = fails(w, "open", nvmf_dev_open(w->sh, &cfg, NULL, NULL, &dev, &err), &err) ||
	      fails(w, "wait", nvmf_dev_wait(dev, 20000, &err), &err) ||
	      fails(w, "claim", nvmf_dev_claim(dev, 0x11, false, &err), &err) ||
	      fails(w, "again", nvmf_dev_claim(dev, 0x11, true, &err), &err) ||
	      (gives_back && fails(w, "unclaim", nvmf_dev_unclaim(dev, &err), &err));
	nvmf_dev_close(dev);
	return bad;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	bool bad = shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = w->seed},
			   &w->sh) < 0;

	for (int i = 0; i < 40 && !bad; i++)
		bad = live(w, i == 39 || (w->seed >> i % 32 & 1));
	if (w->sh)
		shard_close(w->sh);
	atomic_store(&w->over, true);
	return NULL;
}

static void devices_of_a_host_in_two_threads_share_its_claim(void **state)
{
	struct worker w[2] = {{.seed = 0x5a35c96e}, {.seed = 0x93e1d24b}};

	peer_add(0, (struct peer_cfg){.reservations = true});
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	while (!atomic_load(&w[0].over) || !atomic_load(&w[1].over)) /* the target lives here */
		shard_run_once(sh);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(w[i].thread, NULL), 0);
	assert_string_equal(w[0].why, "");
	assert_string_equal(w[1].why, "");
	/* Who left last gave it back. */
	assert_int_equal(registered(), 0);
	assert_false(is_claimed(NULL));
}

static void a_target_without_reservations_says_so(void **state)
{
	struct err err = {0};

	peer_add(0, (struct peer_cfg){0});
	d = dev_open(0);
	assert_int_equal(nvmf_dev_claim(d, 1, true, &err), -EOPNOTSUPP);
	assert_true(err.reason[0]);
	assert_int_equal(nvmf_dev_unclaim(d, &err), 0);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_claim_keeps_others_out_until_it_is_given_back),
		T(the_former_owner_is_fenced_by_preemption),
		T(a_claim_the_target_has_forgotten_is_made_again),
		T(a_claim_that_is_still_there_proves_the_cache),
		T(a_claim_the_target_has_forgotten_proves_nothing),
		T(a_claim_younger_than_the_write_proves_nothing),
		T(a_claim_that_survives_a_loss_of_power_proves_nothing),
		T(a_claim_made_again_on_another_path_proves_nothing),
		T(the_devices_of_a_host_share_its_claim),
		T(a_claim_made_again_by_another_device_proves_nothing),
		T(a_claim_that_is_still_there_proves_the_cache_of_all_its_devices),
		T(devices_of_a_host_in_two_threads_share_its_claim),
		T(a_target_without_reservations_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
