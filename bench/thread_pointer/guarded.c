// SPDX-License-Identifier: Apache-2.0
//
// Built with -fstack-protector-all: a function whose frame has the guard of the thread-locals it was entered with.

void call_guarded(void (*f)(void*), void* argument) {
  volatile char room[64];
  room[0] = 0;
  f(argument);
  room[1] = room[0];
}
