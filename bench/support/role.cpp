// SPDX-License-Identifier: Apache-2.0
#include "bench/support/role.hpp"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <system_error>

namespace bench {
namespace {

std::vector<role>& roles() {
  static std::vector<role> all;
  return all;
}

}  // namespace

arguments arguments::parse(const std::vector<std::string>& words) {
  arguments parsed;
  for (std::size_t i = 0; i < words.size(); i += 2) {
    if (words[i].rfind("--", 0) != 0)
      throw std::invalid_argument("expected --option, found '" + words[i] + "'");
    if (i + 1 == words.size()) throw std::invalid_argument(words[i] + " needs a value");
    parsed.set(words[i].substr(2), words[i + 1]);
  }
  return parsed;
}

std::string arguments::text(const std::string& key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) throw std::invalid_argument("--" + key + " is missing");
  return found->second;
}

std::string arguments::text(const std::string& key, const std::string& otherwise) const {
  const auto found = values_.find(key);
  return found == values_.end() ? otherwise : found->second;
}

long arguments::number(const std::string& key) const {
  const std::string value = text(key);
  long parsed = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
  if (error != std::errc() || end != value.data() + value.size())
    throw std::invalid_argument("--" + key + " wants a whole number, not '" + value + "'");
  return parsed;
}

long arguments::number(const std::string& key, long otherwise) const {
  return values_.count(key) != 0 ? number(key) : otherwise;
}

std::vector<std::string> arguments::words() const {
  std::vector<std::string> list;
  for (const auto& [key, value] : values_) {
    list.push_back("--" + key);
    list.push_back(value);
  }
  return list;
}

void role_output::send(std::string_view key, double value) {
  char digits[32];
  const int n = std::snprintf(digits, sizeof digits, "%.17g", value);
  send(key, std::string_view(digits, static_cast<std::size_t>(n)));
}

void role_output::send(std::string_view key, std::string_view value) {
  std::string line;
  line.append(key).append(1, ' ').append(value).append(1, '\n');
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw std::system_error(errno, std::generic_category(), "write to the report pipe");
    done += static_cast<std::size_t>(n);
  }
}

role_registration::role_registration(std::string_view name, role_function run) {
  roles().push_back({name, run});
}

const role* find_role(std::string_view name) {
  for (const role& r : roles())
    if (r.name == name) return &r;
  return nullptr;
}

int run_role_main(const role& r, const std::vector<std::string>& words) try {
  const arguments args = arguments::parse(words);
  role_output out(static_cast<int>(args.number("report-fd", 1)));
  return r.run(args, out);
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s: %s\n", std::string(r.name).c_str(), e.what());
  return 1;
}

}  // namespace bench
