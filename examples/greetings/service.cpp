// SPDX-License-Identifier: Apache-2.0
#include "service.hpp"

#include <exception>
#include <string>
#include <string_view>
#include <utility>

namespace greetings {
namespace {

namespace http = boost::beast::http;

constexpr std::string_view prefix = "/greetings/";
constexpr std::size_t longest_name = 100;
constexpr int seconds_kept = 10;

std::string greeting_of(const std::string& name, stores& from) {
  const std::string key = "greeting:" + name;
  {
    auto cached = from.caches.take();
    if (auto found = cached->find(key)) return *std::move(found);
  }  // others can have the connection while the database is asked
  std::string text = from.databases.take()->greeting(name);
  from.caches.take()->keep(key, text, seconds_kept);
  return text;
}

response with(const request& asked, http::status code, std::string body) {
  response r(code, asked.version());
  r.set(http::field::content_type, "text/plain");
  r.keep_alive(asked.keep_alive());
  r.body() = std::move(body) + '\n';
  r.prepare_payload();
  return r;
}

}  // namespace

response answer(const request& asked, stores& from) {
  const std::string_view target(asked.target().data(), asked.target().size());
  const bool greets = target.starts_with(prefix);
  if (!greets && target != "/visits") return with(asked, http::status::not_found, "no such page");
  if (asked.method() != http::verb::get)
    return with(asked, http::status::method_not_allowed, "GET only");
  try {
    if (!greets)
      return with(asked, http::status::ok, std::to_string(from.caches.take()->count("visits")));
    const std::string name(target.substr(prefix.size()));
    if (name.empty() || name.size() > longest_name || name.find_first_of("/?%") != name.npos)
      return with(asked, http::status::bad_request, "a name of 1 to 100 plain characters, please");
    return with(asked, http::status::ok, greeting_of(name, from));
  } catch (const store_error& e) {
    return with(asked, http::status::service_unavailable, e.what());
  }
}

}  // namespace greetings
