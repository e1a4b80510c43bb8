// SPDX-License-Identifier: Apache-2.0
//
// Lists whose links live in the elements: linking never allocates and never fails.
//
// intrusive_list<T, Tag>   doubly linked ring around a sentinel. T derives from list_node<Tag>; one base
//                          per list an element may be on at the same time, told apart by Tag. An element
//                          can be removed in O(1) by someone who does not know on which list it is; that
//                          is what a cancelled wait and a cancelled timer need.
// intrusive_queue<T, Next> singly linked FIFO through a member `T* next`: 8 bytes an element, O(1)
//                          splice, no removal from the middle.
//
// Invariants
//  1. A node is linked exactly while next is not null; every removal clears it.
//  2. A list neither owns nor destroys its elements. It must be empty when it dies (checked in debug
//     builds), and so must a node be unlinked.
//  3. Nothing here is thread-safe.
//
// A base class instead of a member node found by offsetof: static_cast is defined behaviour for any T.
#pragma once

#include <cstddef>

#include "base/check.hpp"

namespace tendril::detail {

template <class Tag = void>
class list_node;
template <class T, class Tag = void>
class intrusive_list;

template <class Tag>
class list_node {
 public:
  list_node() noexcept = default;
  list_node(const list_node&) = delete;
  list_node& operator=(const list_node&) = delete;

  bool linked() const noexcept { return next_ != nullptr; }

 protected:
  ~list_node() { TENDRIL_ASSERT(!linked(), "a node dies unlinked"); }

 private:
  template <class, class>
  friend class intrusive_list;

  list_node* next_ = nullptr;
  list_node* prev_ = nullptr;
};

template <class T, class Tag>
class intrusive_list {
  using node = list_node<Tag>;

 public:
  intrusive_list() noexcept { reset(); }
  ~intrusive_list() {
    TENDRIL_ASSERT(empty(), "a list dies empty");
    head_.next_ = head_.prev_ = nullptr;
  }
  // Elements point at the sentinel: a list stays where it is. Use splice_back().
  intrusive_list(const intrusive_list&) = delete;
  intrusive_list& operator=(const intrusive_list&) = delete;

  bool empty() const noexcept { return head_.next_ == &head_; }
  /// Exactly one element. O(1).
  bool singular() const noexcept { return !empty() && head_.next_ == head_.prev_; }

  T* front() noexcept { return empty() ? nullptr : to_element(head_.next_); }
  T* back() noexcept { return empty() ? nullptr : to_element(head_.prev_); }
  const T* front() const noexcept { return empty() ? nullptr : to_element(head_.next_); }
  const T* back() const noexcept { return empty() ? nullptr : to_element(head_.prev_); }

  void push_front(T& element) noexcept { link_between(element, &head_, head_.next_); }
  void push_back(T& element) noexcept { link_between(element, head_.prev_, &head_); }
  /// Links element in front of position, which is on this list.
  void insert_before(T& position, T& element) noexcept {
    node& at = position;
    link_between(element, at.prev_, &at);
  }

  /// nullptr when empty.
  T* pop_front() noexcept { return pop(front()); }
  T* pop_back() noexcept { return pop(back()); }

  /// Removes element from the list of this kind it is on, whichever that is.
  static void remove(T& element) noexcept {
    node& n = element;
    TENDRIL_ASSERT(n.linked(), "a removed element was on a list");
    n.prev_->next_ = n.next_;
    n.next_->prev_ = n.prev_;
    n.next_ = n.prev_ = nullptr;
  }

  /// The neighbours on this list; nullptr past either end.
  T* next(T& element) noexcept { return neighbour(static_cast<node&>(element).next_); }
  T* prev(T& element) noexcept { return neighbour(static_cast<node&>(element).prev_); }

  /// Moves all of other's elements, in order, behind ours. O(1).
  void splice_back(intrusive_list& other) noexcept {
    if (other.empty()) return;
    TENDRIL_ASSERT(&other != this, "a list is not spliced into itself");
    node* const first = other.head_.next_;
    node* const last = other.head_.prev_;
    first->prev_ = head_.prev_;
    head_.prev_->next_ = first;
    last->next_ = &head_;
    head_.prev_ = last;
    other.reset();
  }

  /// visitor(T&) for each element, front to back; it may remove the element it is given, no other.
  template <class Visitor>
  void for_each(Visitor&& visitor) {
    for (node* n = head_.next_; n != &head_;) {
      node* const following = n->next_;
      visitor(*to_element(n));
      n = following;
    }
  }

 private:
  struct sentinel : node {};

  static T* to_element(node* n) noexcept { return static_cast<T*>(n); }
  static const T* to_element(const node* n) noexcept { return static_cast<const T*>(n); }
  T* neighbour(node* n) noexcept { return n == &head_ ? nullptr : to_element(n); }

  static void link_between(T& element, node* before, node* after) noexcept {
    node& n = element;
    TENDRIL_ASSERT(!n.linked(), "an element is on one list at a time");
    n.prev_ = before;
    n.next_ = after;
    before->next_ = &n;
    after->prev_ = &n;
  }

  static T* pop(T* element) noexcept {
    if (element != nullptr) remove(*element);
    return element;
  }

  void reset() noexcept { head_.next_ = head_.prev_ = &head_; }

  sentinel head_;
};

template <class T, auto Next = &T::next>
class intrusive_queue {
 public:
  intrusive_queue() noexcept = default;
  intrusive_queue(intrusive_queue&& other) noexcept : head_(other.head_), tail_(other.tail_) {
    other.head_ = other.tail_ = nullptr;
  }
  intrusive_queue& operator=(intrusive_queue&&) = delete;
  ~intrusive_queue() { TENDRIL_ASSERT(empty(), "a list dies empty"); }

  bool empty() const noexcept { return head_ == nullptr; }
  T* front() const noexcept { return head_; }

  void push(T* element) noexcept {
    element->*Next = nullptr;
    if (tail_ == nullptr) head_ = element;
    else tail_->*Next = element;
    tail_ = element;
  }

  void push_front(T* element) noexcept {
    element->*Next = head_;
    head_ = element;
    if (tail_ == nullptr) tail_ = element;
  }

  /// nullptr when empty. The element's link is null afterwards.
  T* pop() noexcept {
    T* const element = head_;
    if (element == nullptr) return nullptr;
    head_ = element->*Next;
    if (head_ == nullptr) tail_ = nullptr;
    element->*Next = nullptr;
    return element;
  }

  /// Moves all of other's elements, in order, behind ours. O(1).
  void splice(intrusive_queue& other) noexcept {
    if (other.empty()) return;
    TENDRIL_ASSERT(&other != this, "a list is not spliced into itself");
    if (tail_ == nullptr) head_ = other.head_;
    else tail_->*Next = other.head_;
    tail_ = other.tail_;
    other.head_ = other.tail_ = nullptr;
  }

 private:
  T* head_ = nullptr;
  T* tail_ = nullptr;
};

}  // namespace tendril::detail
