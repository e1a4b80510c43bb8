// SPDX-License-Identifier: Apache-2.0
#include "bench/support/memory.hpp"

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace bench {
namespace {

/// The value of a "Key:   123 kB" line; kernels print all of these in kB.
std::uint64_t kilobytes_line(std::string_view file, std::string_view key) {
  std::ifstream in{std::string(file)};
  for (std::string line; std::getline(in, line);) {
    if (line.size() <= key.size() || line.compare(0, key.size(), key) != 0 ||
        line[key.size()] != ':')
      continue;
    std::istringstream value(line.substr(key.size() + 1));
    std::uint64_t kb = 0;
    if (value >> kb) return kb * 1024;
  }
  throw std::runtime_error(std::string(file) + " has no line " + std::string(key));
}

memory_use read_in(const std::string& process) {
  memory_use m;
  m.resident_bytes = kilobytes_line(process + "/status", "VmRSS");
  m.peak_bytes = kilobytes_line(process + "/status", "VmHWM");
  m.page_table_bytes = kilobytes_line(process + "/status", "VmPTE");
  m.kernel_stack_bytes = kilobytes_line("/proc/meminfo", "KernelStack");
  std::ifstream maps(process + "/maps");
  for (std::string line; std::getline(maps, line);) ++m.mappings;
  return m;
}

}  // namespace

memory_use read_memory_use() { return read_in("/proc/self"); }
memory_use read_memory_use_of(int pid) { return read_in("/proc/" + std::to_string(pid)); }

}  // namespace bench
