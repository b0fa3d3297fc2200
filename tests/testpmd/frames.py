#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Hand-made frames on an interface, and looking for them on another.

  frames.py send IF KIND KEY=VALUE...   KIND: raw, ip, arp-reply, syn; a token marks the frame
  frames.py sniff IF TOKEN READY        until stdin ends; then prints how many frames had the token
"""
import os
import select
import socket
import struct
import sys

ETH_P_ALL = 3


def mac(text):
    return bytes(int(x, 16) for x in text.split(':'))


def checksum(data):
    if len(data) % 2:
        data += b'\0'
    s = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while s >> 16:
        s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff


def ipv4(src, dst, proto, payload):
    h = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(payload), 1, 0, 64, proto, 0,
                    socket.inet_aton(src), socket.inet_aton(dst))
    return h[:10] + struct.pack('!H', checksum(h)) + h[12:] + payload


def tcp_syn(src, dst, sport, dport, payload=b''):
    t = struct.pack('!HHIIBBHHH', sport, dport, 1, 0, 0x50, 2, 65535, 0, 0) + payload
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack('!BBH', 0, 6, len(t))
    return t[:16] + struct.pack('!H', checksum(pseudo + t)) + t[18:]


def frames(kind, a):
    token = a.get('token', '').encode()
    dst, src = mac(a['dst']), mac(a['src'])
    if kind == 'raw':  # local experimental EtherType
        yield dst + src + b'\x88\xb5' + token.ljust(50, b'\0')
    elif kind == 'ip':  # UDP with the token in it
        udp = struct.pack('!HHHH', 9, 9, 8 + len(token), 0) + token
        yield dst + src + b'\x08\0' + ipv4(a['sip'], a['dip'], 17, udp)
    elif kind == 'arp-reply':
        yield (dst + src + b'\x08\x06' + bytes.fromhex('0001080006040002') + src +
               socket.inet_aton(a['sip']) + dst + socket.inet_aton(a['dip']) + token)
    elif kind == 'syn':
        for i in range(int(a.get('count', '1'))):
            yield dst + src + b'\x08\0' + ipv4(a['sip'], a['dip'], 6, tcp_syn(
                a['sip'], a['dip'], 20000 + i, int(a['dport']), token))
    else:
        sys.exit('unknown kind ' + kind)


def packet_socket(ifname):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.bind((ifname, ETH_P_ALL))
    return s


def send(ifname, kind, *args):
    s = packet_socket(ifname)
    for f in frames(kind, dict(x.split('=', 1) for x in args)):
        s.send(f.ljust(60, b'\0'))


def sniff(ifname, token, ready):
    s = packet_socket(ifname)
    token, seen = token.encode(), 0
    open(ready, 'w').close()
    while True:
        r = select.select([s, 0], [], [])[0]
        if s in r:
            data, addr = s.recvfrom(4096)
            seen += token in data and addr[2] != socket.PACKET_OUTGOING
        elif not os.read(0, 1):
            break
    print(seen)


{'send': send, 'sniff': sniff}[sys.argv[1]](*sys.argv[2:])
