// What plugins in C have of a libc. Each event meets a fresh instance, so memory is only ever
// handed out: what is freed comes back with the next instance.
#include <stdlib.h>
#include <string.h>

extern unsigned char __heap_base;

static unsigned char *next_free = &__heap_base;

void *malloc(size_t size) {
  unsigned char *start = next_free;
  size = (size + 15) & ~(size_t)15;
  size_t have = __builtin_wasm_memory_size(0) * 65536;
  size_t need = (size_t)start + size;
  if (need < size) return NULL;
  if (need > have) {
    size_t pages = (need - have + 65535) / 65536;
    if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) return NULL;
  }
  next_free = start + size;
  return start;
}

void *calloc(size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
  // Fresh memory is zero already.
  return malloc(bytes);
}

void *realloc(void *old, size_t size) {
  unsigned char *grown = malloc(size);
  if (!grown) return NULL;
  if (old) {
    // The old size is not kept; what lies between the two is the most that it can have been.
    size_t most = (size_t)(grown - (unsigned char *)old);
    memcpy(grown, old, size < most ? size : most);
  }
  return grown;
}

void free(void *it) { (void)it; }

_Noreturn void abort(void) { __builtin_trap(); }

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
  return __builtin_memcpy(to, from, size);
}

void *memmove(void *to, const void *from, size_t size) {
  return __builtin_memmove(to, from, size);
}

void *memset(void *to, int byte, size_t size) { return __builtin_memset(to, byte, size); }

int memcmp(const void *left, const void *right, size_t size) {
  const unsigned char *a = left, *b = right;
  for (; size > 0 && *a == *b; size--) a++, b++;
  return size > 0 ? *a - *b : 0;
}

size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  return length;
}

// The bindings ask for an object that names the world; `hookgate plugin build` does that later.
void __component_type_object_force_link_plugin(void) {}
