// SPDX-License-Identifier: Apache-2.0
//
// The parts of channels that are neither hot nor dependent on the element.
#include <tendril/channel.hpp>

namespace tendril::detail {

channel_base::~channel_base() {
  expects(receivers_.empty() && senders_.empty(), "channel: destroyed while somebody waits on it");
}

void channel_base::close() noexcept {
  wake_batch batch;
  lock_.lock();
  closed_ = true;
  const auto complete_some = [&batch](wait_list& list) {
    while (!batch.full()) {
      wait_node* const node = take_partner(list);
      if (node == nullptr) return false;
      if (waiter* const who = finish(*node, outcome::closed)) batch.add(who);
    }
    return true;
  };
  // Nobody links itself any more, so this ends.
  while (complete_some(receivers_) || complete_some(senders_)) {
    lock_.unlock();
    batch.unpark_all();
    lock_.lock();
  }
  lock_.unlock();
  batch.unpark_all();
}

bool channel_base::is_closed() const noexcept {
  lock_.lock();
  const bool closed = closed_;
  lock_.unlock();
  return closed;
}

std::size_t channel_base::size() const noexcept {
  lock_.lock();
  const std::size_t count = count_;
  lock_.unlock();
  return count;
}

std::error_code channel_base::error_of(outcome result) noexcept {
  switch (result) {
    case outcome::signalled:
      return {};
    case outcome::closed:
      return make_error_code(errc::channel_closed);
    default:
      return to_error(result);
  }
}

void channel_base::fail(outcome result, const char* what) {
  throw std::system_error(error_of(result), what);
}

}  // namespace tendril::detail
