/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A small scripted NVMe/TCP target for tests of the initiator: one namespace of memory, on the test's own shard, over real
 * sockets. It behaves, or misbehaves in exactly one way, once. Several peers may be paths to one namespace (cfg.ns), several hosts may
 * connect to one peer. Thread: the shard's.
 *
 *	peer_open(sh, &(struct peer_cfg){.mischief = PEER_R2T_BEYOND}, &p);
 *	... connect to 127.0.0.1:p->port, do I/O ...
 *	peer_hold(p, NVME_CMD_WRITE, 1, PEER_HOLD_ALL); ... peer_drop_connections(p); ... peer_release(p)      a ghost write
 *	peer_set_ana(p, NVME_ANA_INACCESSIBLE)                                                        with a notice
 *	peer_close(p);
 */
#ifndef TESTS_UNIT_NVMF_PEER_H
#define TESTS_UNIT_NVMF_PEER_H

#include <sys/queue.h>

#include "common/nvme/ana.h"
#include "common/nvme/identify.h"
#include "common/nvme/tcp.h"
#include "dpu/net/sockets.h"
#include "tests/unit/nvmf_peer_ns.h"

#define PEER_CONNS 16
#define PEER_CMDS  2048
#define PEER_BUF   (512u << 10)
#define PEER_NQN   "nqn.2024-01.test:peer"

enum peer_mischief {
	PEER_GOOD,
	/* while connecting */
	PEER_NO_ICRESP,
	PEER_BAD_ICRESP, /* MAXH2CDATA 0 */
	PEER_FEWER_DIGESTS,
	PEER_REFUSE_CONNECT,
	PEER_ASK_AUTH,
	PEER_NEVER_READY,
	PEER_FATAL_STATUS,
	/* at the first read or write */
	PEER_RESP_UNKNOWN,
	PEER_RESP_TWICE,
	PEER_DATA_UNKNOWN,
	PEER_DATA_FOR_WRITE,
	PEER_DATA_BEYOND,
	PEER_DATA_GAP,
	PEER_DATA_LENGTH, /* DATAL against the PDU's length */
	PEER_R2T_BEYOND,
	PEER_R2T_FOR_READ,
	PEER_R2T_TWICE,
	PEER_R2T_GAP,
	PEER_SHORT_READ, /* success without data */
	PEER_BAD_HDGST,
	PEER_BAD_DDGST,
	PEER_TERM,
	PEER_CLOSE,
	PEER_GARBAGE,
	PEER_WRONG_DIRECTION,
	PEER_NO_ANSWER, /* not even to Abort */
	PEER_SLOW, /* answers only when aborted: Command Abort Requested */
	PEER_MEDIA_ERROR,
	PEER_MUTATE, /* flips bits in everything it sends, by seed */
	PEER_NMISCHIEFS
};

struct peer_cfg {
	enum peer_mischief mischief;
	bool hdgst, ddgst; /* digests it agrees to */
	uint8_t cpda;
	uint32_t capsule_bytes; /* in-capsule data of I/O queues; 0: none */
	uint32_t r2t_bytes; /* most per R2T; 0: all */
	uint32_t c2h_bytes; /* most per C2HData; 0: all */
	uint32_t maxh2cdata; /* 0: 4096 */
	bool success; /* C2HData with SUCCESS in place of a response */
	uint16_t max_queues; /* 0: 8 */
	uint64_t seed;
	struct peer_ns *ns; /* NULL: its own, of nblocks (0: PEER_BLOCKS) */
	uint32_t nblocks;
	bool reservations;
	bool no_ptpl; /* they cannot persist through power loss */
	bool ana; /* reports asymmetric access */
	enum nvme_ana_state ana_state; /* 0: optimized */
	uint16_t kas, cqt; /* of Identify: 100 ms, ms */
	bool aborts_nothing; /* Abort is answered: not aborted */
	bool no_namespace; /* it has none now: Invalid Namespace */
	/* Fills len bytes at off of the discovery log; NULL: six records of its own. */
	void (*log_fn)(void *arg, uint64_t off, uint8_t *buf, uint32_t len);
	/* Fills the list of namespaces above `after`; each has the format of the first. NULL: there is one. */
	void (*list_fn)(void *arg, uint32_t after, le32 *list);
	void *fn_arg;
};

enum peer_hold {
	PEER_HOLD_ANSWER, /* carried out on arrival, answered when released */
	PEER_HOLD_ALL, /* carried out when released, too: late */
};

struct peer_cmd {
	struct nvme_sqe sqe;
	bool busy;
	uint32_t len, got, granted;
	uint8_t *data; /* what R2Ts have brought so far */
};

struct peer_held {
	struct peer_conn *c; /* NULL: its connection is gone */
	struct nvme_sqe sqe;
	uint8_t hostid[16];
	uint16_t cntlid;
	uint8_t *data;
	bool carried_out;
	uint16_t status;
	TAILQ_ENTRY(peer_held) link;
};

struct peer;

struct peer_conn {
	struct peer *p;
	struct stream *stream;
	struct nvme_tcp_link link;
	uint16_t qid, cntlid;
	uint8_t hostid[16];
	bool open;
	bool aer_here, event_waits;
	uint16_t aer_cid;
	uint32_t event, async_config;
	uint32_t have;
	uint8_t *buf;
	struct peer_cmd cmds[PEER_CMDS];
};

struct peer {
	struct shard *sh;
	struct peer_cfg cfg;
	struct stream_listener *l;
	uint16_t port;
	struct peer_ns *ns;
	uint8_t *mem; /* the namespace's */
	enum nvme_ana_state ana_state;
	uint64_t ana_changes;
	uint16_t ncontrollers;
	struct {
		uint8_t opcode;
		unsigned int left;
		enum peer_hold how;
	} hold;
	TAILQ_HEAD(, peer_held) held;
	struct peer_conn conns[PEER_CONNS];
	bool done_mischief;
	/* what it has seen */
	uint32_t ncommands, nflushes, nkeep_alives, naborts, naers, nconnects, nr2ts,
		ncapsule_writes;
	uint32_t cc;
	int term_fes; /* of the last H2CTermReq, -1: none */
	uint32_t kato_ms; /* of the last Connect of an admin queue */
	uint32_t nheld; /* held now */
	uint32_t nana_reads;
};

int peer_open(struct shard *sh, const struct peer_cfg *cfg, struct peer **out);
void peer_close(struct peer *p);
void peer_drop_connections(struct peer *p);
/* Nobody listens on its port any more, connections are dropped; and back again. */
void peer_down(struct peer *p);
int peer_up(struct peer *p);
/* Completes the pending AER of every admin queue, or the next one. */
void peer_async_event(struct peer *p, uint32_t result);
/* Whoever has asked for such notices gets one. While it is not usable I/O ends with the path status that fits. */
void peer_set_ana(struct peer *p, enum nvme_ana_state state);

/* The next count I/O commands of that opcode are held back. An Abort ends one that has not been carried out, unless cfg.aborts_nothing. */
void peer_hold(struct peer *p, uint8_t opcode, unsigned int count, enum peer_hold how);
/* All held ones go on, in the order they came: a write is carried out (as far as reservations let it now) even when the connection it
 * came on is gone. */
void peer_release(struct peer *p);
/* They never happen. */
void peer_forget(struct peer *p);

#endif
