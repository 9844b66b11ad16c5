// Delivers only events whose type begins with the `prefix` that is configured.

#include <string.h>

#include "plugin.h"

typedef exports_hookgate_plugin_filter_event_t event_t;
typedef exports_hookgate_plugin_filter_filtered_t filtered_t;

static plugin_string_t prefix;

bool exports_hookgate_plugin_setup_configure(plugin_list_tuple2_string_string_t *config,
                                             plugin_string_t *err) {
  for (size_t i = 0; i < config->len; i++) {
    plugin_string_t name = config->ptr[i].f0;
    if (name.len == 6 && memcmp(name.ptr, "prefix", 6) == 0) {
      // What came is freed when this returns.
      plugin_string_dup_n(&prefix, (const char *)config->ptr[i].f1.ptr, config->ptr[i].f1.len);
      return true;
    }
  }
  plugin_string_dup(err, "`prefix` is missing in the plugin's config");
  return false;
}

bool exports_hookgate_plugin_filter_filter(event_t *event, filtered_t *ret,
                                           plugin_string_t *err) {
  (void)err;
  bool begins = event->event_type.len >= prefix.len &&
                memcmp(event->event_type.ptr, prefix.ptr, prefix.len) == 0;
  ret->tag = HOOKGATE_PLUGIN_TYPES_FILTERED_DELIVER;
  if (!begins) {
    ret->tag = HOOKGATE_PLUGIN_TYPES_FILTERED_DROP;
    plugin_string_dup(&ret->val.drop, "its type begins otherwise");
  }
  return true;
}
