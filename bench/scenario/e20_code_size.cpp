// SPDX-License-Identifier: Apache-2.0
//
// E20: how many bytes do three functions take that call one another and may wait? The same source as ordinary code
// (threads, reserved fibers), compiled for segmented stacks, as async1 methods and as tasks, each a translation
// unit of its own, optimised as the rest of this build. Counted in the object file: code (.text*), what unwinding
// needs (.eh_frame) and the tables of handlers (.gcc_except_table*).
//   bytes         all of it
//   bytes_shared  the part of it in sections that a program has once, however many functions of the kind it has:
//                 templates of the promise and handle types
//
// Does not show: the model's own library; what a linker removes.

#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/table.hpp"

#include <elf.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {
namespace {

struct sizes {
  std::uint64_t text = 0;
  std::uint64_t frames = 0;  // .eh_frame
  std::uint64_t handlers = 0;
  std::uint64_t shared = 0;
  std::uint64_t all() const noexcept { return text + frames + handlers; }
};

bool starts_with(const char* name, const char* with) {
  return std::strncmp(name, with, std::strlen(with)) == 0;
}

/// \throws std::runtime_error  naming a file that is not there or is no 64-bit ELF object
sizes sizes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> file((std::istreambuf_iterator<char>(in)), {});
  if (!in && file.empty())
    throw std::runtime_error("cannot read " + path + ": is this program still where it was built?");
  // Sections may be anywhere in a file, aligned for another address: copied, not cast.
  const auto copy = [&](auto& into, std::uint64_t at) {
    if (at > file.size() || sizeof into > file.size() - at)
      throw std::runtime_error(path + " is cut off");
    std::memcpy(&into, file.data() + at, sizeof into);
  };
  Elf64_Ehdr head{};
  copy(head, 0);
  if (std::memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64)
    throw std::runtime_error(path + " is no 64-bit ELF object");
  const auto section = [&](std::uint64_t index) {
    Elf64_Shdr s{};
    copy(s, head.e_shoff + index * head.e_shentsize);
    return s;
  };
  const Elf64_Shdr names = section(head.e_shstrndx);
  sizes sum;
  for (unsigned i = 0; i != head.e_shnum; ++i) {
    const Elf64_Shdr s = section(i);
    const std::uint64_t at = names.sh_offset + s.sh_name;
    if (at >= file.size()) throw std::runtime_error(path + " is cut off");
    const char* const name = file.data() + at;
    std::uint64_t sizes::*part = nullptr;
    if (starts_with(name, ".text")) part = &sizes::text;
    else if (std::strcmp(name, ".eh_frame") == 0) part = &sizes::frames;
    else if (starts_with(name, ".gcc_except_table")) part = &sizes::handlers;
    if (part == nullptr) continue;
    sum.*part += s.sh_size;
    if ((s.sh_flags & SHF_GROUP) != 0) sum.shared += s.sh_size;
  }
  if (sum.text == 0) throw std::runtime_error(path + " holds no code");
  return sum;
}

void run(context& ctx) {
  std::vector<std::pair<std::string, std::string>> objects{{"thread", CODE_SIZE_PLAIN},
                                                           {"fiber/reserved", CODE_SIZE_PLAIN},
#ifdef CODE_SIZE_SEGMENTED
                                                           {"fiber/segmented", CODE_SIZE_SEGMENTED},
#endif
                                                           {"async1", CODE_SIZE_ASYNC1},
                                                           {"task", CODE_SIZE_TASK}};
  std::printf(
      "  three functions; bytes of .text* + .eh_frame + .gcc_except_table* in the object\n");
  table out({"variant", "bytes", "of it shared", "text", "eh_frame", "handlers", "to plain"});
  double plain = 0;
  for (const auto& [variant, path] : objects)
    ctx.attempt(variant, [&, &v = variant, &p = path] {
      const sizes s = sizes_of(p);
      const auto bytes = static_cast<double>(s.all());
      if (plain == 0) plain = bytes;
      ctx.add(v, "bytes", bytes, "bytes");
      ctx.add(v, "bytes_shared", static_cast<double>(s.shared), "bytes");
      ctx.add(v, "ratio_to_plain", bytes / plain, "ratio");
      out.row({v, fixed(bytes, 0), fixed(static_cast<double>(s.shared), 0),
               fixed(static_cast<double>(s.text), 0), fixed(static_cast<double>(s.frames), 0),
               fixed(static_cast<double>(s.handlers), 0), fixed(bytes / plain, 2)});
    });
  out.print();
}

const registration entry({"E20",
                          "code size of three functions that may wait",
                          "what each model adds to the code of the functions that use it",
                          "the models' own libraries; what a linker removes",
                          {"thread", "fiber/<stack>", "async1", "task"},
                          run});

}  // namespace
}  // namespace bench
