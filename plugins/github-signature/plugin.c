// Takes only events that GitHub signed: `X-Hub-Signature-256: sha256=HEX`, the HMAC-SHA256 of the
// body under the webhook's secret.
// The scheme: https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries

#include <stdint.h>
#include <string.h>

#include "plugin.h"

typedef exports_hookgate_plugin_ingest_incoming_t incoming_t;
typedef exports_hookgate_plugin_ingest_ingested_t ingested_t;

static plugin_string_t secret;
static plugin_string_t fact;

// --- SHA-256 (FIPS 180-4) and HMAC (RFC 2104)

typedef struct {
  uint32_t state[8];
  uint64_t length;
  uint8_t block[64];
} sha256_t;

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t it, int bits) { return it >> bits | it << (32 - bits); }

static void compress(sha256_t *hash) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++) {
    const uint8_t *at = hash->block + 4 * i;
    w[i] = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
  }
  for (int i = 16; i < 64; i++) {
    uint32_t a = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
    uint32_t b = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + a + w[i - 7] + b;
  }
  memcpy(s, hash->state, sizeof s);
  for (int i = 0; i < 64; i++) {
    uint32_t e = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
    uint32_t one = s[7] + e + ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + w[i];
    uint32_t a = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
    uint32_t two = a + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += one;
    s[0] = one + two;
  }
  for (int i = 0; i < 8; i++) hash->state[i] += s[i];
}

static sha256_t sha256_start(void) {
  sha256_t hash = {{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
                    0x1f83d9ab, 0x5be0cd19},
                   0,
                   {0}};
  return hash;
}

static void sha256_add(sha256_t *hash, const uint8_t *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) {
    hash->block[hash->length++ % 64] = bytes[i];
    if (hash->length % 64 == 0) compress(hash);
  }
}

static void sha256_end(sha256_t *hash, uint8_t digest[32]) {
  uint64_t bits = hash->length * 8;
  uint8_t byte = 0x80;
  do {
    sha256_add(hash, &byte, 1);
    byte = 0;
  } while (hash->length % 64 != 56);
  for (int i = 7; i >= 0; i--) {
    byte = (uint8_t)(bits >> (8 * i));
    sha256_add(hash, &byte, 1);
  }
  for (int i = 0; i < 32; i++) digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}

static void hmac(const uint8_t *body, size_t size, uint8_t mac[32]) {
  uint8_t key[64] = {0}, pad[64];
  sha256_t hash = sha256_start();
  if (secret.len > sizeof key) {
    sha256_add(&hash, secret.ptr, secret.len);
    sha256_end(&hash, key);
  } else {
    memcpy(key, secret.ptr, secret.len);
  }
  for (int i = 0; i < 64; i++) pad[i] = key[i] ^ 0x36;
  hash = sha256_start();
  sha256_add(&hash, pad, 64);
  sha256_add(&hash, body, size);
  sha256_end(&hash, mac);
  for (int i = 0; i < 64; i++) pad[i] = key[i] ^ 0x5c;
  hash = sha256_start();
  sha256_add(&hash, pad, 64);
  sha256_add(&hash, mac, 32);
  sha256_end(&hash, mac);
}

// --- The plugin

static bool is(plugin_string_t text, plugin_string_t other) {
  return text.len == other.len && memcmp(text.ptr, other.ptr, text.len) == 0;
}

// The text of a name, or NULL.
static plugin_string_t *find(plugin_list_tuple2_string_string_t *pairs, plugin_string_t name) {
  for (size_t i = 0; i < pairs->len; i++) {
    if (is(pairs->ptr[i].f0, name)) return &pairs->ptr[i].f1;
  }
  return NULL;
}

static plugin_string_t text(const char *it) {
  plugin_string_t text;
  plugin_string_set(&text, it);
  return text;
}

static plugin_string_t copy(plugin_string_t it) {
  plugin_string_t copied;
  plugin_string_dup_n(&copied, (const char *)it.ptr, it.len);
  return copied;
}

bool exports_hookgate_plugin_setup_configure(plugin_list_tuple2_string_string_t *config,
                                             plugin_string_t *err) {
  plugin_string_t *given = find(config, text("secret"));
  if (!given || given->len == 0) {
    plugin_string_dup(err, "`secret` is missing in the plugin's config");
    return false;
  }
  secret = copy(*given);
  given = find(config, text("fact"));
  fact = copy(given ? *given : text("x-hub-signature-256"));
  return true;
}

static const char *refuse(incoming_t *event) {
  plugin_string_t *given = find(&event->metadata, fact);
  plugin_string_t prefix = text("sha256=");
  if (!given) return "the metadata has no signature";
  if (given->len != prefix.len + 64 || memcmp(given->ptr, prefix.ptr, prefix.len) != 0) {
    return "the signature is not of the form sha256=HEX";
  }
  uint8_t mac[32], differs = 0;
  hmac(event->payload.ptr, event->payload.len, mac);
  // All digits are looked at, so that time does not tell how many are right.
  for (int i = 0; i < 64; i++) {
    uint8_t half = i % 2 ? mac[i / 2] & 15 : mac[i / 2] >> 4;
    differs |= given->ptr[prefix.len + i] ^ (uint8_t)"0123456789abcdef"[half];
  }
  return differs ? "the signature is not GitHub's" : NULL;
}

bool exports_hookgate_plugin_ingest_ingest(incoming_t *event, ingested_t *ret,
                                           plugin_string_t *err) {
  (void)err;
  const char *reason = refuse(event);
  ret->tag = HOOKGATE_PLUGIN_TYPES_INGESTED_ACCEPT;
  if (reason) {
    ret->tag = HOOKGATE_PLUGIN_TYPES_INGESTED_REJECT;
    plugin_string_dup(&ret->val.reject, reason);
  }
  return true;
}
