/* The Internet checksum (RFC 1071), and the one field of a frame it goes into. */
#include <string.h>

#include "bhyve/net/net.h"

uint64_t net_sum(const void *data, size_t len, uint64_t sum)
{
	const uint8_t *p = data;

	for (; len >= 8; p += 8, len -= 8) {
		uint32_t w[2];

		memcpy(w, p, 8);
		sum += w[0];
		sum += w[1];
	}
	if (len >= 4) {
		uint32_t w;

		memcpy(&w, p, 4);
		sum += w;
		p += 4;
		len -= 4;
	}
	if (len >= 2) {
		uint16_t w;

		memcpy(&w, p, 2);
		sum += w;
		p += 2;
		len -= 2;
	}
	if (len > 0)
		sum += *p;
	return sum;
}

uint16_t net_sum_finish(uint64_t sum)
{
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

bool net_checksum(const struct net_hdr *hdr, uint8_t *frame, size_t len)
{
	size_t at = (size_t)hdr->csum_start + hdr->csum_offset;
	uint16_t sum;

	if ((hdr->flags & NET_HDR_NEEDS_CSUM) == 0)
		return true;
	if (hdr->csum_start >= len || at + 2 > len)
		return false;
	/* The field holds the pseudo-header's sum already. */
	sum = net_sum_finish(
	    net_sum(frame + hdr->csum_start, len - hdr->csum_start, 0));
	/* To UDP a zero says "no checksum"; to TCP both zeros are one. */
	if (sum == 0)
		sum = 0xffff;
	memcpy(frame + at, &sum, 2);
	return true;
}
