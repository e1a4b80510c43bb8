// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into any program, says how large a thread's block is there, and whose thread-locals are in it:
//
//   LD_PRELOAD=build/release/bench/thread_pointer/libtendril_block_size.so curl --version
//
// libc's struct pthread and its reserve for libraries that are loaded later are in the sum and have no line.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stddef.h>
#include <stdio.h>

static int print_one(struct dl_phdr_info* object, size_t size, void* unused) {
  (void)size;
  (void)unused;
  for (int i = 0; i != object->dlpi_phnum; ++i)
    if (object->dlpi_phdr[i].p_type == PT_TLS)
      fprintf(stderr, "%6zu  %s\n", (size_t)object->dlpi_phdr[i].p_memsz,
              object->dlpi_name[0] != '\0' ? object->dlpi_name : "the program");
  return 0;
}

__attribute__((constructor)) static void print_sizes(void) {
  void* const found = dlsym(RTLD_DEFAULT, "_dl_get_tls_static_info");
  if (found == NULL) return;
  size_t bytes = 0;
  size_t alignment = 0;
  ((void (*)(size_t*, size_t*))found)(&bytes, &alignment);
  fprintf(stderr, "%6zu  a thread's block\n", bytes);
  dl_iterate_phdr(print_one, NULL);
}
