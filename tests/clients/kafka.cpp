// SPDX-License-Identifier: Apache-2.0
//
// librdkafka, which mixes threads of its own with calls that wait for them on condition variables. Its brokers
// here are the library's mock ones, sockets on the loopback interface.
#include <librdkafka/rdkafka.h>

#include <atomic>
#include <memory>
#include <set>
#include <string>

#include "clients/crowd.hpp"

using namespace tendril::test;

namespace {

struct destroy {
  void operator()(rd_kafka_t* k) const { rd_kafka_destroy(k); }
  void operator()(rd_kafka_topic_partition_list_t* l) const {
    rd_kafka_topic_partition_list_destroy(l);
  }
  void operator()(rd_kafka_message_t* m) const { rd_kafka_message_destroy(m); }
};
using client = std::unique_ptr<rd_kafka_t, destroy>;

void set(rd_kafka_conf_t* conf, const char* name, const std::string& value) {
  char error[256] = "";
  require(rd_kafka_conf_set(conf, name, value.c_str(), error, sizeof error) == RD_KAFKA_CONF_OK,
          error);
}

client make(rd_kafka_type_t type, rd_kafka_conf_t* conf) {
  char error[256] = "";
  client k(rd_kafka_new(type, conf, error, sizeof error));
  require(k != nullptr, error);
  return k;
}

/// Told of each message that a broker has, by whoever polls.
void delivered(rd_kafka_t*, const rd_kafka_message_t* m, void*) {
  if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) ++*static_cast<std::atomic<int>*>(m->_private);
}

}  // namespace

TEST_SUITE_BEGIN("librdkafka");

TEST_CASE("producing and consuming") {
  each_crowd([](crowd& c) {
    c.run(10, [](int i) {
      constexpr int messages = 200;
      const std::string topic = "topic" + std::to_string(i);
      std::atomic<int> known{0};
      rd_kafka_conf_t* conf = rd_kafka_conf_new();
      set(conf, "test.mock.num.brokers", "2");
      rd_kafka_conf_set_dr_msg_cb(conf, delivered);
      const client producer = make(RD_KAFKA_PRODUCER, conf);
      for (int k = 0; k != messages; ++k) {
        const std::string value = std::to_string(k);
        const rd_kafka_resp_err_t e = rd_kafka_producev(
            producer.get(), RD_KAFKA_V_TOPIC(topic.c_str()), RD_KAFKA_V_PARTITION(0),
            RD_KAFKA_V_VALUE(const_cast<char*>(value.data()), value.size()),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_OPAQUE(&known), RD_KAFKA_V_END);
        require(e == RD_KAFKA_RESP_ERR_NO_ERROR, rd_kafka_err2str(e));
      }
      require(rd_kafka_flush(producer.get(), 60'000) == RD_KAFKA_RESP_ERR_NO_ERROR, "flush");
      require(known == messages, std::to_string(known) + " delivered");

      // The brokers are the producer's: it tells where they listen.
      const rd_kafka_metadata_t* brokers = nullptr;
      require(rd_kafka_metadata(producer.get(), 0, nullptr, &brokers, 60'000) ==
                  RD_KAFKA_RESP_ERR_NO_ERROR,
              "metadata");
      std::string list;
      for (int k = 0; k != brokers->broker_cnt; ++k)
        list.append(k != 0 ? "," : "")
            .append(brokers->brokers[k].host)
            .append(1, ':')
            .append(std::to_string(brokers->brokers[k].port));
      rd_kafka_metadata_destroy(brokers);

      conf = rd_kafka_conf_new();
      set(conf, "bootstrap.servers", list);
      set(conf, "group.id", "group" + std::to_string(i));
      const client consumer = make(RD_KAFKA_CONSUMER, conf);
      const std::unique_ptr<rd_kafka_topic_partition_list_t, destroy> wanted(
          rd_kafka_topic_partition_list_new(1));
      rd_kafka_topic_partition_list_add(wanted.get(), topic.c_str(), 0)->offset =
          RD_KAFKA_OFFSET_BEGINNING;
      require(rd_kafka_assign(consumer.get(), wanted.get()) == RD_KAFKA_RESP_ERR_NO_ERROR,
              "assign");
      for (int next = 0; next != messages;) {
        const std::unique_ptr<rd_kafka_message_t, destroy> m(
            rd_kafka_consumer_poll(consumer.get(), 1000));
        if (m == nullptr || m->err != RD_KAFKA_RESP_ERR_NO_ERROR) continue;
        require(std::string(static_cast<char*>(m->payload), m->len) == std::to_string(next),
                "order");
        ++next;
      }
      rd_kafka_consumer_close(consumer.get());
    });
  });
}

TEST_SUITE_END();
