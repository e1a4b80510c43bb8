// SPDX-License-Identifier: Apache-2.0
#include "intercept/file_facts.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <new>

#include "base/static_tables.hpp"
#include "intercept/calls.hpp"
#include "intercept/install.hpp"

namespace tendril::detail {
namespace {

// The word of a number's facts:
//   63        32 31      6   5..4    3            2         1..0
//   | generation | epoch  |      | timeouts | nonblocking | class |      0: nothing is known
// Generations begin at 1, so a word that matches is never 0. timeouts: they have been looked up.
constexpr std::uint64_t class_mask = 3, nonblocking_bit = 4, timeouts_bit = 8;
constexpr unsigned epoch_shift = 6, generation_shift = 32;
constexpr std::uint64_t epoch_mask = (std::uint64_t{1} << 26) - 1;

struct facts {
  std::atomic<std::uint64_t> word{0};
  std::atomic<std::uint64_t> changes{
      0};  ///< of this number's flags: who looks compares before and after
  std::atomic<std::int64_t>
      timeouts[2]{};  // nanoseconds, by direction; written before timeouts_bit is set
};

constexpr std::size_t chunk_bits = 10;
constexpr std::size_t chunk_entries = std::size_t{1} << chunk_bits;
constexpr std::size_t chunk_count = 4096;  // as many as the table of descriptors
using chunk = std::array<facts, chunk_entries>;
std::array<std::atomic<chunk*>, chunk_count> chunks{};
const static_table chunks_noted(chunks);

/// Some file has several numbers, or is shared with other processes' numbers as the standard streams are.
std::atomic<bool> aliases{false};

facts* find_facts(int fd) noexcept {
  const auto number = static_cast<std::size_t>(fd);
  if (fd < 0 || number >= chunk_count * chunk_entries) return nullptr;
  chunk* const c = chunks[number >> chunk_bits].load(std::memory_order_acquire);
  return c != nullptr ? &(*c)[number & (chunk_entries - 1)] : nullptr;
}

/// Null: beyond the table, or no memory.
facts* obtain_facts(int fd) noexcept {
  if (static_cast<std::size_t>(fd) >= chunk_count * chunk_entries) return nullptr;
  auto& place = chunks[static_cast<std::size_t>(fd) >> chunk_bits];
  if (place.load(std::memory_order_acquire) == nullptr) {
    auto* const fresh = new (std::nothrow) chunk;
    if (fresh == nullptr) return nullptr;
    chunk* expected = nullptr;
    if (!place.compare_exchange_strong(expected, fresh, std::memory_order_acq_rel)) delete fresh;
  }
  return find_facts(fd);
}

/// The upper part of a word about the present.
std::uint64_t present(std::uint32_t generation) noexcept {
  return std::uint64_t{generation} << generation_shift |
         (file_flags_epoch.load(std::memory_order_acquire) & epoch_mask) << epoch_shift;
}

// Out of line: see errno in operation.hpp.
[[gnu::noinline]] int classify(int fd, std::uint64_t& bits) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  struct stat about;
  if (flags < 0 || ::fstat(fd, &about) != 0) return errno;
  file_class what = file_class::nowait;
  if (S_ISSOCK(about.st_mode)) what = file_class::socket;
  else if (S_ISREG(about.st_mode) || S_ISDIR(about.st_mode) || S_ISBLK(about.st_mode))
    what = file_class::unparked;
  else if (S_ISCHR(about.st_mode)) what = file_class::polled;
  bits = static_cast<std::uint64_t>(what) | ((flags & O_NONBLOCK) != 0 ? nonblocking_bit : 0);
  return 0;
}

[[gnu::noinline]] int option_of(int fd, int option) noexcept {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}
/// The short-read rule holds for TCP. Not for Unix sockets: a read ends where a descriptor was sent along.
descriptor_kind kind_of(int fd) {
  return option_of(fd, SO_TYPE) == SOCK_STREAM && option_of(fd, SO_PROTOCOL) == IPPROTO_TCP
             ? descriptor_kind::shared_stream
             : descriptor_kind::shared_other;
}

[[gnu::noinline]] std::int64_t socket_timeout(int fd, int option) noexcept {
  timeval limit{};
  socklen_t size = sizeof limit;
  if (::getsockopt(fd, SOL_SOCKET, option, &limit, &size) != 0) return 0;
  return std::int64_t{limit.tv_sec} * 1'000'000'000 + limit.tv_usec * 1'000;
}

void fill(file_use& use, std::uint64_t word) noexcept {
  use.what = static_cast<file_class>(word & class_mask);
  use.nonblocking = (word & nonblocking_bit) != 0;
}

int find_out(int fd, file_use& use) noexcept {
  if (fd < 0) return EBADF;
  facts* const f = obtain_facts(fd);
  if (f == nullptr) return ENOMEM;
  const auto changes = f->changes.load(std::memory_order_acquire);
  std::uint64_t bits = 0;
  // The epoch before the flags: should these change in between, what was seen is out of date at once.
  const auto before = file_flags_epoch.load(std::memory_order_acquire);
  if (const int error = classify(fd, bits); error != 0) return error;
  if (in_other_process()) return ECHILD;
  descriptor_ref ref;
  try {
    ref = share_descriptor(fd, &kind_of);
  } catch (const std::system_error& e) {
    return e.code().value();
  } catch (...) {
    return ENOMEM;
  }
  const auto word = std::uint64_t{ref.generation} << generation_shift |
                    (before & epoch_mask) << epoch_shift | bits;
  f->word.store(word, std::memory_order_release);
  if (f->changes.load(std::memory_order_acquire) != changes)
    f->word.store(0, std::memory_order_release);
  use.entry = find_descriptor(fd);
  use.generation = ref.generation;
  fill(use, word);
  return 0;
}

}  // namespace

bool recall_file(int fd, file_use& use) noexcept {
  const facts* const f = find_facts(fd);
  descriptor* const d = find_descriptor(fd);
  if (f == nullptr || d == nullptr || !d->is_adopted()) return false;
  use.entry = d;
  use.generation = d->generation();
  const auto word = f->word.load(std::memory_order_acquire);
  if (word >> epoch_shift != present(use.generation) >> epoch_shift) return false;
  fill(use, word);
  return true;
}

int look_at_file(int fd, file_use& use) noexcept {
  if (recall_file(fd, use)) return 0;
  const int errno_before = errno_now();
  const int error = find_out(fd, use);
  finish(0, errno_before);
  return error;
}

void reclassify(const file_use& use, file_class what) noexcept {
  facts* const f = find_facts(use.entry->fd());
  auto word = f->word.load(std::memory_order_relaxed);
  while (word >> generation_shift == use.generation &&
         !f->word.compare_exchange_weak(word,
                                        (word & ~class_mask) | static_cast<std::uint64_t>(what),
                                        std::memory_order_release, std::memory_order_relaxed)) {
  }
}

std::chrono::nanoseconds timeout_of(const file_use& use, direction way) noexcept {
  if (use.what != file_class::socket) return std::chrono::nanoseconds::zero();
  const int fd = use.entry->fd();
  facts* const f = find_facts(fd);
  auto word = f->word.load(std::memory_order_acquire);
  if ((word & timeouts_bit) == 0 || word >> epoch_shift != present(use.generation) >> epoch_shift) {
    f->timeouts[0].store(socket_timeout(fd, SO_RCVTIMEO), std::memory_order_relaxed);
    f->timeouts[1].store(socket_timeout(fd, SO_SNDTIMEO), std::memory_order_relaxed);
    // Only about what the word was about before they were looked up.
    f->word.compare_exchange_strong(word, word | timeouts_bit, std::memory_order_release,
                                    std::memory_order_relaxed);
  }
  return std::chrono::nanoseconds(
      f->timeouts[static_cast<unsigned>(way)].load(std::memory_order_relaxed));
}

void flags_changed(int fd) noexcept {
  if (fd <= 2 || aliases.load(std::memory_order_relaxed)) {
    file_flags_epoch.fetch_add(1, std::memory_order_acq_rel);
  } else if (facts* const f = find_facts(fd)) {
    f->changes.fetch_add(1, std::memory_order_acq_rel);
    f->word.store(0, std::memory_order_release);
  }
}

void number_doubled() noexcept { aliases.store(true, std::memory_order_relaxed); }

}  // namespace tendril::detail
