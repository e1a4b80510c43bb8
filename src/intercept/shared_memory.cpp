// SPDX-License-Identifier: Apache-2.0
//
// Asked by PROCMAP_QUERY, which Linux has since 6.11, else found in the list of mappings.
#include "intercept/shared_memory.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "intercept/install.hpp"

namespace tendril::detail {
namespace {

/// As linux/fs.h has it.
struct procmap_query {
  std::uint64_t size;
  std::uint64_t query_flags;
  std::uint64_t query_addr;
  std::uint64_t vma_start;
  std::uint64_t vma_end;
  std::uint64_t vma_flags;
  std::uint64_t vma_page_size;
  std::uint64_t vma_offset;
  std::uint64_t inode;
  std::uint32_t dev_major;
  std::uint32_t dev_minor;
  std::uint32_t vma_name_size;
  std::uint32_t build_id_size;
  std::uint64_t vma_name_addr;
  std::uint64_t build_id_addr;
};
static_assert(sizeof(procmap_query) == 104);
constexpr std::uint64_t query_shared = 0x08;

/// 1: shared; 0: not; -1: not told.
int asked(int maps, std::uintptr_t address) noexcept {
  procmap_query q{};
  q.size = sizeof q;
  q.query_addr = address;
  if (real().ioctl(maps, _IOWR('f', 17, procmap_query), &q) == 0)
    return (q.vma_flags & query_shared) != 0 ? 1 : 0;
  return errno == ENOENT ? 0 : -1;  // nothing is mapped there
}

/// Lines "low-high rwxs ...", in hexadecimal.
bool found(int maps, std::uintptr_t address) noexcept {
  char text[1024];
  std::size_t there = 0;
  bool in_line = false;  // in the rest of one that has been looked at
  for (;;) {
    const ssize_t n = real().read(maps, text + there, sizeof text - 1 - there);
    if (n <= 0) return false;
    there += static_cast<std::size_t>(n);
    text[there] = 0;
    const char* at = text;
    while (*at != 0) {
      if (!in_line) {
        constexpr std::size_t head = 16 + 1 + 16 + 1 + 4;
        if (std::strlen(at) < head && std::strchr(at, '\n') == nullptr) break;  // read on
        char* end = nullptr;
        const std::uintptr_t low = std::strtoul(at, &end, 16);
        const std::uintptr_t high = std::strtoul(end + 1, &end, 16);
        if (address < low) return false;
        if (address < high) return end[4] == 's';
        in_line = true;
      }
      const char* const line_end = std::strchr(at, '\n');
      if (line_end == nullptr) {
        at += std::strlen(at);
      } else {
        at = line_end + 1;
        in_line = false;
      }
    }
    there = std::strlen(at);
    std::memmove(text, at, there);
  }
}

}  // namespace

[[gnu::noinline]] bool is_shared_memory(const void* address) noexcept {
  const int before = errno;
  const int maps = real().open("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
  bool shared = false;
  if (maps >= 0) {
    const auto where = reinterpret_cast<std::uintptr_t>(address);
    const int told = asked(maps, where);
    shared = told < 0 ? found(maps, where) : told != 0;
    real().close(maps);
  }
  errno = before;
  return shared;
}

}  // namespace tendril::detail
