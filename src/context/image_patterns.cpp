// SPDX-License-Identifier: Apache-2.0
#include "context/image_patterns.hpp"

#include "base/check.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

namespace tendril::detail {

struct image_pattern {
  image_pattern* next = nullptr;
  std::atomic<std::uint32_t> folds{0};  ///< and those who look at it
  std::uint32_t bytes = 0;              ///< of the stack
  std::size_t count = 0;
  pattern_words words;
};

namespace {

// Range i of three ends at reserved + (i + 1) * 2^32.
constexpr std::uint64_t reserved = 0x5A3C'9D00'0000'0000;
constexpr unsigned reserved_shift = 34;

constexpr bool is_reserved(std::uint64_t word) noexcept {
  return word >> reserved_shift == reserved >> reserved_shift;
}

std::uint64_t relative(std::uint64_t word, const image_owner& owner) noexcept {
  std::uint64_t end = reserved;
  for (const image_owner::range* const r : {&owner.slot, &owner.core, &owner.frame}) {
    end += std::uint64_t{1} << 32;
    if (r->end - word <= r->bytes) return end - (r->end - word);
  }
  return word;
}

std::uint64_t absolute(std::uint64_t word, const image_owner& owner) noexcept {
  if (!is_reserved(word)) return word;
  const std::uint64_t number = (word - reserved + 0xFFFF'FFFF) >> 32;
  const std::uint64_t below = reserved + (number << 32) - word;
  const image_owner::range& r = number == 1 ? owner.slot : number == 2 ? owner.core : owner.frame;
  return r.end - below;
}

std::uint64_t word_at(const std::byte* data, std::size_t i) noexcept {
  std::uint64_t w;
  std::memcpy(&w, data + i * sizeof w, sizeof w);
  return w;
}

constexpr bool is_wide(std::uint64_t difference) noexcept { return difference >> 32 != 0; }

constexpr std::size_t bytes_for_bits(std::size_t bits) noexcept { return (bits + 7) / 8; }

struct difference {
  std::size_t words = 0;
  std::size_t wide = 0;

  std::size_t fold_bytes(std::size_t count) const noexcept {
    return sizeof(image_pattern*) + bytes_for_bits(count) + bytes_for_bits(words) + 4 * words +
           4 * wide;
  }
};

/// Of words in relative form. Gives up where the fold would have most_bytes.
difference difference_of(const std::uint64_t* words, const image_pattern& pattern,
                         std::size_t most_bytes) noexcept {
  difference d;
  for (std::size_t i = 0; i != pattern.count; ++i) {
    const std::uint64_t x = words[i] ^ pattern.words[i];
    if (x == 0) continue;
    ++d.words;
    if (is_wide(x)) ++d.wide;
    if (4 * (d.words + d.wide) >= most_bytes) break;
  }
  return d;
}

std::byte* write_fold(const std::uint64_t* words, image_pattern* pattern,
                      const difference& d) noexcept {
  auto* const fold = static_cast<std::byte*>(std::malloc(d.fold_bytes(pattern->count)));
  if (fold == nullptr) return nullptr;
  std::memcpy(fold, &pattern, sizeof pattern);
  auto* const differs = reinterpret_cast<unsigned char*>(fold + sizeof pattern);
  unsigned char* const wide = differs + bytes_for_bits(pattern->count);
  unsigned char* out = wide + bytes_for_bits(d.words);
  std::memset(differs, 0, static_cast<std::size_t>(out - differs));
  std::size_t k = 0;
  for (std::size_t i = 0; k != d.words; ++i) {
    const std::uint64_t x = words[i] ^ pattern->words[i];
    if (x == 0) continue;
    differs[i / 8] |= static_cast<unsigned char>(1U << i % 8);
    const std::size_t bytes = is_wide(x) ? 8 : 4;
    if (is_wide(x)) wide[k / 8] |= static_cast<unsigned char>(1U << k % 8);
    std::memcpy(out, &x, bytes);  // little-endian: the lower half comes first
    out += bytes;
    ++k;
  }
  return fold;
}

image_pattern* pattern_of(const std::byte* fold) noexcept {
  image_pattern* p;
  std::memcpy(&p, fold, sizeof p);
  return p;
}

/// Release: add() may free it afterwards.
void let_go(image_pattern* p) noexcept { p->folds.fetch_sub(1, std::memory_order_release); }

/// The words in relative form; null: it cannot be folded, or there is no memory.
pattern_words relative_words(const std::byte* data, std::size_t count,
                             const image_owner& owner) noexcept {
  pattern_words words(static_cast<std::uint64_t*>(std::malloc(count * sizeof(std::uint64_t))));
  if (words == nullptr) return nullptr;
  for (std::size_t i = 0; i != count; ++i) {
    const std::uint64_t w = word_at(data, i);
    if (is_reserved(w)) return nullptr;
    words[i] = relative(w, owner);
  }
  return words;
}

}  // namespace

static_assert(std::endian::native == std::endian::little);

image_patterns::image_patterns() = default;

image_patterns::~image_patterns() {
  for (image_pattern* p : table_)
    while (p != nullptr) {
      TENDRIL_ASSERT(p->folds.load(std::memory_order_relaxed) == 0,
                     "patterns outlive the images that were folded by them");
      delete std::exchange(p, p->next);
    }
}

/// Those used most are first.
image_patterns::candidates image_patterns::find(std::size_t words) noexcept {
  candidates c{{}, 0};
  std::uint32_t used[most_alike];
  const std::lock_guard hold(lock_);
  for (image_pattern* p = table_[words % (1U << table_bits)]; p != nullptr; p = p->next) {
    if (p->count != words) continue;
    const std::uint32_t folds = p->folds.fetch_add(1, std::memory_order_relaxed);
    unsigned at = c.count++;
    for (; at != 0 && used[at - 1] < folds; --at) {
      c.pattern[at] = c.pattern[at - 1];
      used[at] = used[at - 1];
    }
    c.pattern[at] = p;
    used[at] = folds;
  }
  return c;
}

/// Takes the words and returns their pattern, in use. Null: there are too many, or there is no memory.
image_pattern* image_patterns::add(pattern_words& words, std::size_t count,
                                   std::uint32_t bytes) noexcept {
  auto* const fresh = new (std::nothrow) image_pattern;
  if (fresh == nullptr) return nullptr;
  fresh->count = count;
  fresh->bytes = bytes;
  fresh->folds.store(1, std::memory_order_relaxed);
  fresh->words = std::move(words);

  image_pattern* unused = nullptr;
  const auto unlink_unused = [&](image_pattern*& first, bool all) {
    for (image_pattern** at = &first; *at != nullptr;) {
      image_pattern* const p = *at;
      // Acquire: those who used it have read it for the last time.
      if ((all || p->count == count) && p->folds.load(std::memory_order_acquire) == 0) {
        *at = p->next;
        words_ -= p->count;
        size_.fetch_sub(1, std::memory_order_relaxed);
        p->next = std::exchange(unused, p);
        if (!all) return true;
      } else {
        at = &p->next;
      }
    }
    return false;
  };
  bool fits = true;
  {
    const std::lock_guard hold(lock_);
    image_pattern*& first = table_[count % (1U << table_bits)];
    unsigned alike = 0;
    for (const image_pattern* p = first; p != nullptr; p = p->next)
      if (p->count == count) ++alike;
    if (alike >= most_for(count)) fits = unlink_unused(first, false);
    if (fits && words_ + count > most_words) {
      for (image_pattern*& each : table_) unlink_unused(each, true);
      fits = words_ + count <= most_words;
    }
    if (fits) {
      fresh->next = std::exchange(first, fresh);
      words_ += count;
      size_.fetch_add(1, std::memory_order_relaxed);
    }
  }
  while (unused != nullptr) delete std::exchange(unused, unused->next);
  if (fits) return fresh;
  words = std::move(fresh->words);
  delete fresh;
  return nullptr;
}

std::byte* image_patterns::fold(const std::byte* data, std::size_t words, std::uint32_t bytes,
                                const image_owner& owner) noexcept {
  pattern_words own = relative_words(data, words, owner);
  if (own == nullptr) return nullptr;
  const std::size_t whole = words * sizeof(std::uint64_t);
  const candidates c = find(words);
  image_pattern* best = nullptr;
  difference least;
  std::size_t least_bytes = whole / 2;
  // Smaller than that it need not be: no better pattern is looked for, or made. The allocator's blocks are multiples of
  // 16 and have a word besides.
  const std::size_t small_bytes = std::max(whole / 16, std::size_t{40});
  for (unsigned i = 0; i != c.count && least_bytes > small_bytes; ++i) {
    const difference d = difference_of(own.get(), *c.pattern[i], least_bytes);
    if (d.fold_bytes(words) >= least_bytes) continue;
    best = c.pattern[i];
    least = d;
    least_bytes = d.fold_bytes(words);
  }
  // Before a new one is added: it may take the place of one of these.
  for (unsigned i = 0; i != c.count; ++i)
    if (c.pattern[i] != best) let_go(c.pattern[i]);
  if (best == nullptr || (least_bytes > small_bytes && c.count < most_for(words))) {
    if (image_pattern* const fresh = add(own, words, bytes)) {
      if (best != nullptr) let_go(best);
      std::byte* const fold = write_fold(fresh->words.get(), fresh, {});
      if (fold == nullptr) let_go(fresh);
      return fold;
    }
    if (best == nullptr) return nullptr;
  }
  std::byte* const fold = write_fold(own.get(), best, least);
  if (fold == nullptr) let_go(best);
  return fold;
}

std::size_t words_of_fold(const std::byte* fold) noexcept { return pattern_of(fold)->count; }
std::uint32_t bytes_of_fold(const std::byte* fold) noexcept { return pattern_of(fold)->bytes; }

namespace {

const unsigned char* differs_of(const std::byte* fold) noexcept {
  return reinterpret_cast<const unsigned char*>(fold + sizeof(image_pattern*));
}

std::size_t ones_in(const unsigned char* bits, std::size_t bytes) noexcept {
  std::size_t ones = 0;
  for (std::size_t i = 0; i != bytes; ++i) ones += static_cast<std::size_t>(std::popcount(bits[i]));
  return ones;
}

bool bit_at(const unsigned char* bits, std::size_t i) noexcept {
  return (bits[i / 8] >> i % 8 & 1) != 0;
}

}  // namespace

std::size_t size_of_fold(const std::byte* fold) noexcept {
  const std::size_t bitmap = bytes_for_bits(words_of_fold(fold));
  difference d;
  d.words = ones_in(differs_of(fold), bitmap);
  d.wide = ones_in(differs_of(fold) + bitmap, bytes_for_bits(d.words));
  return d.fold_bytes(words_of_fold(fold));
}

fold_reader::fold_reader(const std::byte* fold, const image_owner& owner) noexcept
    : owner_(owner),
      pattern_(*pattern_of(fold)),
      differs_(differs_of(fold)),
      wide_(differs_ + bytes_for_bits(pattern_.count)),
      in_(wide_ + bytes_for_bits(ones_in(differs_, bytes_for_bits(pattern_.count)))) {}

std::size_t fold_reader::read(std::byte* to, std::size_t most) noexcept {
  const std::size_t count = std::min(most, pattern_.count - word_);
  for (const std::size_t end = word_ + count; word_ != end; ++word_) {
    std::uint64_t w = pattern_.words[word_];
    if (bit_at(differs_, word_)) {
      const std::size_t bytes = bit_at(wide_, different_++) ? 8 : 4;
      std::uint64_t x = 0;
      std::memcpy(&x, in_, bytes);
      in_ += bytes;
      w ^= x;
    }
    w = absolute(w, owner_);
    std::memcpy(to, &w, sizeof w);
    to += sizeof w;
  }
  return count;
}

void free_fold(const std::byte* fold) noexcept {
  image_pattern* const p = pattern_of(fold);
  std::free(const_cast<std::byte*>(fold));
  let_go(p);
}

}  // namespace tendril::detail
