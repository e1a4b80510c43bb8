// SPDX-License-Identifier: Apache-2.0
//
// Work on libuv's thread pool.
#include <tendril/fiber.hpp>
#include <tendril/io.hpp>

#include "io/blocking.hpp"
#include "io/pool_job.hpp"
#include "sched/stack_hold.hpp"

namespace tendril::detail {
namespace {

class work_job final : public pool_job {
 public:
  explicit work_job(pool_call& call) noexcept : call_(call) { request_.data = this; }

  int submit() noexcept {
    const int status = uv_queue_work(
        start(), &request_, [](uv_work_t* r) { self(r).call_.run(self(r).call_); },
        [](uv_work_t* r, int result) {
          self(r).status_ = result;
          self(r).finish();
        });
    if (status != 0) not_started();
    return status;
  }
  bool was_run() const noexcept { return status_ == 0; }

 private:
  static work_job& self(uv_work_t* r) noexcept { return *static_cast<work_job*>(r->data); }
  uv_req_t* request() noexcept override { return reinterpret_cast<uv_req_t*>(&request_); }

  pool_call& call_;  // outlives the job's use of it: the fiber waits for the callback in any case
  uv_work_t request_{};
  int status_ = 0;
};

int begin(pool_job_ptr<work_job>& job, pool_call& call) {
  const worker_use here{worker_use::may_move{}};
  job.reset(new work_job(call));
  return job->submit();
}

}  // namespace

std::error_code run_on_pool_to_the_end(pool_call& call, const char* reason) {
  pool_job_ptr<work_job> job;
  if (const int status = begin(job, call); status != 0) return uv_error(status);
  job->wait(false, reason, false);
  return {};
}

std::error_code run_on_pool(pool_call& call) {
  if (!can_park()) {
    about_to_block("blocking");
    call.run(call);
    return {};
  }
  pool_job_ptr<work_job> job;
  if (const int status = begin(job, call); status != 0) return uv_error(status);
  const stack_hold captures_stay;
  const outcome result = job->wait(true, "blocking");
  if (result == outcome::signalled) return {};
  job->cancel();
  job->wait(false, "blocking (cancelled)");
  return job->was_run() ? std::error_code() : to_error(result);
}

}  // namespace tendril::detail
