// SPDX-License-Identifier: Apache-2.0
//
// Names to addresses: literals at once, everything else by getaddrinfo on libuv's pool, or on the
// calling thread when that is no fiber.
#include <netdb.h>

#include <algorithm>
#include <cerrno>

#include <tendril/fiber.hpp>
#include <tendril/net.hpp>

#include "io/address.hpp"
#include "io/pool_job.hpp"

namespace tendril::net {
namespace {

class resolve_errors final : public std::error_category {
 public:
  const char* name() const noexcept override { return "resolve"; }
  std::string message(int value) const override { return ::gai_strerror(value); }
};

std::error_code from_gai(int value) noexcept {
  if (value == 0) return {};
  if (value == EAI_SYSTEM) return {errno, std::system_category()};
  return {value, resolve_category()};
}

/// libuv has numbers of its own for them.
std::error_code from_uv(int status) noexcept {
  constexpr struct {
    int uv, gai;
  } table[] = {
    {UV_EAI_AGAIN, EAI_AGAIN},
    {UV_EAI_BADFLAGS, EAI_BADFLAGS},
    {UV_EAI_FAIL, EAI_FAIL},
    {UV_EAI_FAMILY, EAI_FAMILY},
    {UV_EAI_MEMORY, EAI_MEMORY},
    {UV_EAI_NONAME, EAI_NONAME},
    {UV_EAI_SERVICE, EAI_SERVICE},
    {UV_EAI_SOCKTYPE, EAI_SOCKTYPE},
#if defined(EAI_NODATA)
    {UV_EAI_NODATA, EAI_NODATA},
#endif
#if defined(EAI_ADDRFAMILY)
    {UV_EAI_ADDRFAMILY, EAI_ADDRFAMILY},
#endif
#if defined(EAI_OVERFLOW)
    {UV_EAI_OVERFLOW, EAI_OVERFLOW},
#endif
  };
  if (status == 0) return {};
  if (status == UV_EAI_CANCELED) return std::make_error_code(std::errc::operation_canceled);
  for (const auto& [uv, gai] : table)
    if (uv == status) return {gai, resolve_category()};
  return detail::uv_error(status);
}

addrinfo hints() noexcept {
  addrinfo h{};
  h.ai_family = AF_UNSPEC;
  h.ai_socktype = SOCK_STREAM;  // one entry an address, not one a protocol
  return h;
}

std::vector<endpoint> collect(const addrinfo* list) {
  std::vector<endpoint> result;
  for (; list != nullptr; list = list->ai_next) {
    const endpoint e = detail::to_endpoint(list->ai_addr);
    if (e.get_family() == endpoint::family::none) continue;
    if (std::find(result.begin(), result.end(), e) == result.end()) result.push_back(e);
  }
  return result;
}

class resolve_job final : public detail::pool_job {
 public:
  resolve_job() noexcept { request_.data = this; }

  int submit(const char* host, const char* service) noexcept {
    const addrinfo h = hints();
    const int status = uv_getaddrinfo(
        start(), &request_,
        [](uv_getaddrinfo_t* r, int result, addrinfo* list) {
          auto& self = *static_cast<resolve_job*>(r->data);
          self.status_ = result;
          self.list_ = list;
          self.finish();
        },
        host, service, &h);
    if (status != 0) not_started();
    return status;
  }
  int status() const noexcept { return status_; }
  const addrinfo* list() const noexcept { return list_; }

 private:
  ~resolve_job() override { uv_freeaddrinfo(list_); }
  uv_req_t* request() noexcept override { return reinterpret_cast<uv_req_t*>(&request_); }

  uv_getaddrinfo_t request_{};
  addrinfo* list_ = nullptr;
  int status_ = 0;
};

std::vector<endpoint> resolve_on_fiber(const char* host, const char* service, std::error_code& ec) {
  detail::pool_job_ptr<resolve_job> job;
  {
    const detail::worker_use here{detail::worker_use::may_move{}};
    job.reset(new resolve_job);
    if (const int status = job->submit(host, service); status != 0) {
      ec = from_uv(status);
      return {};
    }
  }
  const detail::outcome result = job->wait(true, "resolve");
  if (result != detail::outcome::signalled) {
    // It may be running by now, and take its time: whoever is last frees the job.
    job->cancel();
    ec = detail::to_error(result);
    return {};
  }
  ec = from_uv(job->status());
  return collect(job->list());
}

[[gnu::noinline]] std::vector<endpoint> resolve_on_thread(const char* host, const char* service,
                                                          std::error_code& ec) {
  const addrinfo h = hints();
  addrinfo* list = nullptr;
  detail::about_to_block("resolve");
  ec = from_gai(::getaddrinfo(host, service, &h, &list));
  if (ec) return {};
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owned(list, &::freeaddrinfo);
  return collect(list);
}

}  // namespace

const std::error_category& resolve_category() noexcept {
  static const resolve_errors category;
  return category;
}

std::vector<endpoint> resolve(std::string_view host, std::string_view service,
                              std::error_code& ec) {
  ec.clear();
  if (service.empty()) {
    // A literal needs no pool. (The exception costs more than the parsing, hence parse().)
    std::error_code not_literal;
    const bool v6 = host.find(':') != std::string_view::npos;
    const std::string text = v6 ? '[' + std::string(host) + "]:0" : std::string(host) + ":0";
    const endpoint literal = endpoint::parse(text, not_literal);
    if (!not_literal) return {literal};
  }
  const std::string h(host);
  const std::string s(service);
  const char* const service_or_null = s.empty() ? nullptr : s.c_str();
  return detail::can_park() ? resolve_on_fiber(h.c_str(), service_or_null, ec)
                            : resolve_on_thread(h.c_str(), service_or_null, ec);
}

std::vector<endpoint> resolve(std::string_view host, std::string_view service) {
  std::error_code ec;
  auto result = resolve(host, service, ec);
  if (ec)
    throw std::system_error(
        ec, "resolve " + std::string(host) + (service.empty() ? "" : ':' + std::string(service)));
  return result;
}

std::vector<endpoint> resolve(std::string_view host, std::uint16_t port, std::error_code& ec) {
  auto result = resolve(host, std::string_view(), ec);
  for (endpoint& e : result) e.set_port(port);
  return result;
}

std::vector<endpoint> resolve(std::string_view host, std::uint16_t port) {
  auto result = resolve(host, std::string_view());
  for (endpoint& e : result) e.set_port(port);
  return result;
}

}  // namespace tendril::net
