// SPDX-License-Identifier: Apache-2.0
//
// A program on a block of thread-locals of its own for a moment, as plain as can be: for tools to look at. Built by hand,
// since each tool wants flags of its own:
//
//   cc -g in_block.c -o in_block && ./in_block                     prints 7 and 42
//   cc -g -fsanitize=address in_block.c ..., -fsanitize=thread ...
//   valgrind ./in_block
//   gdb -batch -ex 'break inside' -ex run -ex 'print local' -ex 'print $fs_base' ./in_block
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

__thread int local = 42;

__attribute__((noinline)) void inside(void) {
  void* volatile memory = malloc(100);
  free(memory);
  printf("%d\n", local);
}

__attribute__((noinline)) static void set_pointer(uintptr_t to) {
  __asm__ volatile("wrfsbase %0" : : "r"(to) : "memory");
}

int main(void) {
  void* (*allocate)(void*) = (void* (*)(void*))dlsym(RTLD_DEFAULT, "_dl_allocate_tls");
  void (*prepare)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, "__ctype_init");
  uintptr_t mine;
  __asm__("movq %%fs:0x10, %0" : "=r"(mine));
  const uintptr_t block = (uintptr_t)allocate(NULL);
  uintptr_t* const words = (uintptr_t*)block;
  const uintptr_t* const old = (const uintptr_t*)mine;
  words[0] = words[2] = block;
  words[5] = old[5];
  words[6] = old[6];
  local = 7;
  setvbuf(stdout, NULL, _IONBF, 0);
  printf("%d\n", local);
  set_pointer(block);
  prepare();
  inside();
  set_pointer(mine);
  return 0;
}
