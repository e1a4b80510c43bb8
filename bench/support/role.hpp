// SPDX-License-Identifier: Apache-2.0
//
// A role is a hidden subcommand of this program: something an experiment runs in a child process of
// its own (a server, or one measurement). Separate processes keep variants from sharing heap, page
// tables and warm caches, let the kernel account CPU for each, and confine a crash to one variant.
//
//   tendril-experiments serve-plaintext --impl callbacks --port 0
//
// A role reports lines "key value" on the descriptor given by --report-fd (standard output when run by
// hand). Roles register themselves from a namespace-scope `const role_registration`.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bench {

/// The "--key value" pairs of a role. Getters throw std::invalid_argument naming the option.
class arguments {
 public:
  arguments() = default;
  arguments(std::initializer_list<std::pair<const std::string, std::string>> pairs)
      : values_(pairs) {}
  static arguments parse(const std::vector<std::string>& words);

  void set(std::string key, std::string value) { values_[std::move(key)] = std::move(value); }
  std::string text(const std::string& key) const;
  std::string text(const std::string& key, const std::string& otherwise) const;
  long number(const std::string& key) const;
  long number(const std::string& key, long otherwise) const;
  std::vector<std::string> words() const;

 private:
  std::map<std::string, std::string> values_;
};

class role_output {
 public:
  explicit role_output(int fd) noexcept : fd_(fd) {}
  void send(std::string_view key, double value);
  void send(std::string_view key, std::string_view value);

 private:
  int fd_;
};

using role_function = int (*)(const arguments&, role_output&);

struct role {
  std::string_view name;
  role_function run;
};

struct role_registration {
  role_registration(std::string_view name, role_function run);
};

/// nullptr when there is none of that name.
const role* find_role(std::string_view name);

/// The rest of a program's main() once its first word has named a role: runs it with the words after
/// that; what it throws is printed, and ends in status 1.
int run_role_main(const role& r, const std::vector<std::string>& words);

}  // namespace bench
