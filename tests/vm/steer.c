/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Does rte_flow really steer? Runs in a guest over net_tap, with dpu/port and dpu/flow as they ship: creates the rules
 * of a VF, sends frames from the kernel's side of the TAP, looks at which queue they came up in and what was counted,
 * removes the rules and looks again.
 *
 *	steer hw|sw         what the rules are expected to be
 * Prints "RESULT rc text" lines; exits 0.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/flow/flow.h"
#include "dpu/port/port.h"

#define IFACE   "dt0"
#define CARD_IP 0x0a090002u /* 10.9.0.2 */
#define EACH \
	64 /* frames of a kind, from as many ports: without a rule the kernel spreads them over the queues */

struct fixture {
	struct shard *sh;
	struct port_set *ps;
	struct port *port;
	int sock;
	struct sockaddr_ll to;
	unsigned int card_frames;
};

static void check(bool good, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void check(bool good, const char *fmt, ...)
{
	va_list ap;

	printf("RESULT %d ", good ? 0 : 1);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

/* ---- frames ---------------------------------------------------------------------------------- */

static size_t put_ethernet(uint8_t *f, const uint8_t dst[6], uint16_t type)
{
	static const uint8_t vm_mac[6] = {0x02, 0, 0, 0, 0, 0x77};

	memcpy(f, dst, 6);
	memcpy(f + 6, vm_mac, 6);
	f[12] = (uint8_t)(type >> 8);
	f[13] = (uint8_t)type;
	return 14;
}

static uint16_t ip_sum(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static size_t put_ip(uint8_t *f, uint8_t proto, uint32_t dst, uint16_t dst_port)
{
	uint8_t *ip = f, *l4 = f + 20;
	uint16_t sum;

	memset(f, 0, 46);
	ip[0] = 0x45;
	ip[3] = 40;
	ip[8] = 64;
	ip[9] = proto;
	memcpy(ip + 12, (uint8_t[]){10, 9, 0, 1}, 4);
	ip[16] = (uint8_t)(dst >> 24);
	ip[17] = (uint8_t)(dst >> 16);
	ip[18] = (uint8_t)(dst >> 8);
	ip[19] = (uint8_t)dst;
	sum = ip_sum(ip, 20);
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
	l4[0] = 0x9c;
	l4[2] = (uint8_t)(dst_port >> 8);
	l4[3] = (uint8_t)dst_port;
	l4[12] = 0x50; /* TCP: header of 20 bytes */
	l4[13] = 0x02; /* SYN */
	return 46;
}

static size_t put_arp(uint8_t *f, uint32_t target)
{
	static const uint8_t head[8] = {0, 1, 8, 0, 6, 4, 0, 1};

	memset(f, 0, 46);
	memcpy(f, head, sizeof(head));
	f[8] = 0x02; /* the sender's MAC: that of the frame */
	f[13] = 0x77;
	memcpy(f + 14, (uint8_t[]){10, 9, 0, 1}, 4);
	f[24] = (uint8_t)(target >> 24);
	f[25] = (uint8_t)(target >> 16);
	f[26] = (uint8_t)(target >> 8);
	f[27] = (uint8_t)target;
	return 46;
}

static void send_frames(struct fixture *x, uint8_t *frame, size_t len)
{
	for (int i = 0; i < EACH; i++) {
		if (frame[13] == 0) /* IPv4: the source port, after 14 + 20 bytes */
			frame[35] = (uint8_t)i;
		if (sendto(x->sock, frame, len, 0, (struct sockaddr *)&x->to, sizeof(x->to)) < 0)
			check(false, "sending on %s: %s", IFACE, strerror(errno));
	}
}

static void send_tcp(struct fixture *x, const uint8_t mac[6], uint16_t port)
{
	uint8_t f[64];
	size_t n = put_ethernet(f, mac, ETHERTYPE_IP);

	n += put_ip(f + n, IPPROTO_TCP, CARD_IP, port);
	send_frames(x, f, n);
}

static void send_arp(struct fixture *x)
{
	uint8_t f[64];
	size_t n = put_ethernet(f, (uint8_t[]){255, 255, 255, 255, 255, 255}, ETHERTYPE_ARP);

	n += put_arp(f + n, CARD_IP);
	send_frames(x, f, n);
}

static void send_udp_elsewhere(struct fixture *x)
{
	uint8_t f[64];
	size_t n = put_ethernet(f, (uint8_t[]){2, 0, 0, 0, 0, 0x99}, ETHERTYPE_IP);

	n += put_ip(f + n, IPPROTO_UDP, 0x0a090063u, 4420);
	send_frames(x, f, n);
}

/* ---- the card's side ----------------------------------------------------------------------------- */

static void count_card_frame(void *arg, struct rte_mbuf *pkt)
{
	struct fixture *x = arg;

	x->card_frames++;
	port_pkt_free(pkt);
}

static bool never(void *arg)
{
	return false;
}

static struct port_stats settle(struct fixture *x)
{
	struct port_stats st;

	shard_wait(x->sh, never, NULL, 700 * 1000000ull);
	port_stats(x->port, &st);
	return st;
}

static void rule_of(struct flow *f, const char *match, struct flow_rule_info *info)
{
	for (unsigned int i = 0; flow_rule_get(f, i, info) == 0; i++)
		if (strstr(info->match, match))
			return;
	memset(info, 0, sizeof(*info));
}

static struct flow *open_flow(struct fixture *x, bool software_only, uint8_t mac[6])
{
	struct flow_cfg cfg = {
		.port = x->port, .vm = "web1", .card_ip = CARD_IP, .software_only = software_only};
	struct flow *f = NULL;
	struct err e = {0};

	flow_card_mac("net_tap0", CARD_IP, cfg.card_mac);
	memcpy(mac, cfg.card_mac, 6);
	if (flow_open(&cfg, &f, &e) < 0)
		check(false, "flow_open: %s", err_text(&e));
	return f;
}

/* Frames of the card come up in its queue if and only if the hardware's rules say so. */
static void traffic(struct fixture *x, struct flow *f, const uint8_t mac[6], bool hw)
{
	struct port_stats start = settle(x), tcp, own, other;
	struct flow_rule_info nvme;
	uint64_t tcp_queue, own_queue, other_queue;

	x->card_frames = 0;
	send_tcp(x, mac, 4420);
	send_tcp(x, mac, 8009);
	tcp = settle(x);
	send_arp(x);
	own = settle(x);
	tcp_queue = tcp.rx_card_queue - start.rx_card_queue;
	send_tcp(x, mac, 4421);
	send_udp_elsewhere(x);
	other = settle(x);
	own_queue = own.rx_card_queue - start.rx_card_queue;
	other_queue = other.rx_card_queue - own.rx_card_queue;
	rule_of(f, "port 4420", &nvme);
	check(x->card_frames == 3 * EACH,
		"the card got %u of %u frames that are its own, and no other", x->card_frames,
		3 * EACH);
	check(nvme.packets == EACH, "the rule for 4420 was hit %lu times", nvme.packets);
	if (hw)
		check(own_queue >= 3 * EACH && other_queue < 2 * EACH,
			"%lu of %u of the card's frames came up in its queue, %lu of %u others",
			own_queue, 3 * EACH, other_queue, 2 * EACH);
	else
		/* the kernel spreads TCP over the queues by chance; ARP is one flow and comes up in either */
		check(tcp_queue < 3 * EACH / 2,
			"nothing steers: %lu of %u of the card's TCP frames in its queue",
			tcp_queue, 2 * EACH);
	if (nvme.hw_counted)
		check(nvme.hw_packets == EACH, "the device counted %lu", nvme.hw_packets);
}

static void try_hardware(struct fixture *x, bool hw)
{
	struct port_stats before, after;
	struct flow_rule_info r;
	uint8_t mac[6];
	struct flow *f = open_flow(x, false, mac);

	if (!f)
		return;
	for (unsigned int i = 0; flow_rule_get(f, i, &r) == 0; i++)
		printf("NOTE rule %s %s -> %s: %s %s\n", r.vm, r.match, r.action, r.provider,
			r.reason);
	rule_of(f, "port 4420", &r);
	if (hw)
		check(strcmp(r.provider, "rte_flow queue") == 0,
			"the rule for 4420 is the kernel's: %s", r.provider);
	else
		check(strcmp(r.provider, "software") == 0 && r.reason[0],
			"creation fails, so the classifier does it: %s (%s)", r.provider, r.reason);
	traffic(x, f, mac, hw);
	flow_close(f);
	before = settle(x);
	send_tcp(x, mac, 4420);
	after = settle(x);
	check(after.rx_packets - before.rx_packets >= EACH &&
			after.rx_card_queue - before.rx_card_queue < EACH,
		"rules are gone after flow_close: %lu frames came, %lu by chance in the card's "
		"queue",
		after.rx_packets - before.rx_packets, after.rx_card_queue - before.rx_card_queue);
}

static void try_software_only(struct fixture *x)
{
	struct flow_rule_info r;
	uint8_t mac[6];
	struct flow *f = open_flow(x, true, mac);

	if (!f)
		return;
	rule_of(f, "port 4420", &r);
	check(strcmp(r.provider, "software") == 0, "hardware switched off: %s", r.provider);
	traffic(x, f, mac, false);
	flow_close(f);
}

static int open_socket(struct fixture *x)
{
	x->sock = socket(AF_PACKET, SOCK_RAW, 0);
	x->to = (struct sockaddr_ll){
		.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(IFACE), .sll_halen = 6};
	return x->sock < 0 || !x->to.sll_ifindex ? -errno : 0;
}

int main(int argc, char **argv)
{
	char no_pci[] = "--no-pci", vdev[] = "--vdev=net_tap0,iface=" IFACE;
	char *eal[] = {argv[0], no_pci, vdev, NULL};
	struct fixture x = {0};
	struct err e = {0};
	bool hw;

	if (argc != 2 || (strcmp(argv[1], "hw") && strcmp(argv[1], "sw")))
		return 2;
	hw = strcmp(argv[1], "hw") == 0;
	setvbuf(stdout, NULL, _IOLBF, 0);
	log_init("steer", LOG_LEVEL_INFO);
	if (port_eal_init((int)ARRAY_LEN(eal) - 1, eal) < 0 ||
		shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE}, &x.sh) < 0 ||
		port_set_open(&(struct port_set_cfg){.shard = x.sh}, &x.ps, &e) < 0) {
		check(false, "starting: %s", err_text(&e));
		return 1;
	}
	x.port = port_find(x.ps, "net_tap0");
	if (!x.port || open_socket(&x) < 0) {
		check(false, "the TAP %s: %s", IFACE, strerror(errno));
		return 1;
	}
	port_card_set(x.port, count_card_frame, &x);
	try_hardware(&x, hw);
	try_software_only(&x);
	port_card_set(x.port, NULL, NULL);
	close(x.sock);
	port_set_close(x.ps);
	shard_close(x.sh);
	port_eal_cleanup();
	return 0;
}
