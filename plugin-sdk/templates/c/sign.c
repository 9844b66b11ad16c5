// Signs `timestamp.body` with HMAC-SHA256, in the header `x-signature`.

#include <stdlib.h>
#include <string.h>

#include "plugin.h"

typedef exports_hookgate_plugin_sign_request_t request_t;

bool exports_hookgate_plugin_setup_configure(plugin_list_tuple2_string_string_t *config,
                                             plugin_string_t *err) {
  (void)config, (void)err;
  return true;
}

// Writes the number's digits and gives the place behind them.
static char *decimal(char *to, uint64_t number) {
  char digits[20];
  int count = 0;
  do digits[count++] = (char)('0' + number % 10);
  while (number /= 10);
  while (count > 0) *to++ = digits[--count];
  return to;
}

bool exports_hookgate_plugin_sign_sign(request_t *request,
                                       plugin_list_tuple2_string_string_t *ret,
                                       plugin_string_t *err) {
  (void)err;
  char *message = malloc(21 + request->body.len);
  char *end = decimal(message, request->timestamp);
  size_t digits = (size_t)(end - message);
  *end++ = '.';
  memcpy(end, request->body.ptr, request->body.len);
  plugin_list_u8_t signed_bytes = {(uint8_t *)message, digits + 1 + request->body.len}, mac;
  hookgate_plugin_keys_hmac(HOOKGATE_PLUGIN_KEYS_ALGORITHM_SHA256, &signed_bytes, &mac);

  char *value = malloc(6 + digits + 2 * mac.len), *to = value;
  memcpy(to, "t=", 2);
  to = decimal(to + 2, request->timestamp);
  memcpy(to, ",v1=", 4);
  to += 4;
  for (size_t i = 0; i < mac.len; i++) {
    *to++ = "0123456789abcdef"[mac.ptr[i] >> 4];
    *to++ = "0123456789abcdef"[mac.ptr[i] & 15];
  }
  ret->ptr = malloc(sizeof *ret->ptr);
  ret->len = 1;
  plugin_string_dup(&ret->ptr->f0, "x-signature");
  ret->ptr->f1 = (plugin_string_t){(uint8_t *)value, (size_t)(to - value)};
  return true;
}
