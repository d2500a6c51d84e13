#include "controller/good_hosts.h"

#include <algorithm>
#include <mutex>

#include "base/json.h"
#include "controller/at_once.h"
#include "controller/provision.h"

namespace guestagent::controller {
namespace {

constexpr std::size_t kAskedAtOnce = 16;
constexpr std::size_t kNamedInError = 10;

}  // namespace

void GoodHosts::ask(const std::vector<Instance>& hosts, std::stop_token stop) {
  std::mutex mutex;
  at_once(hosts.size(), kAskedAtOnce, [&](std::size_t n) {
    const Instance& host = hosts[n];
    std::string why;
    bool has_data = host.has_data;
    try {
      const JsonDocument document = parse_json(agents_.call(host.address, "get_info", "{}", stop), "get_info");
      const auto info = JsonReader(document, "get_info", Code::internal).opt_object("host");
      has_data = info && info->opt_boolean("has_user_data").value_or(false);
      if (has_data && !overwrite_) why = "has data of its own";
    } catch (const NoAnswer& e) {
      why = std::string("does not answer (") + e.what() + ")";
    } catch (const Error& e) {
      why = e.what();
    }
    if (has_data != host.has_data) state_.set_has_data(host.id, has_data);
    const std::lock_guard lock(mutex);
    if (why.empty()) {
      good_.insert(host.id);
    } else {
      left_out_[host.id] = host.name + " " + why;
      data_in_the_way_ = data_in_the_way_ || (has_data && !overwrite_);
    }
  });
}

void GoodHosts::leave_silent(const Instance& host) {
  if (left_out_.emplace(host.id, host.name + " does not answer").second) silent_.insert(host.id);
}

void GoodHosts::find(const HostTemplate& wanted, int count, const std::set<std::string>& not_these,
                     std::stop_token stop) {
  for (;;) {
    std::vector<Instance> spare = state_.spare_hosts(source_id_);
    std::erase_if(spare, [&](const Instance& host) {
      if (live_.status(host.id).verdict == Verdict::unreachable && good_.count(host.id) == 0) leave_silent(host);
      return not_these.count(host.id) != 0 || left_out_.count(host.id) != 0;
    });
    std::vector<std::string> picked;
    try {
      picked = pick_hosts(spare, wanted, count);
    } catch (const Error& e) {
      if (left_out_.empty()) throw;
      // It may have been mended since it was last looked at.
      std::vector<Instance> silent = state_.spare_hosts(source_id_);
      std::erase_if(silent, [&](const Instance& host) {
        return not_these.count(host.id) != 0 || silent_.erase(host.id) == 0 || left_out_.erase(host.id) == 0;
      });
      if (!silent.empty()) {
        ask(silent, stop);
        if (stop.stop_requested()) throw Error(Code::cancelled, "the controller stops");
        continue;
      }
      std::string names;
      std::size_t n = 0;
      for (const auto& [id, why] : left_out_) {
        if (++n <= kNamedInError) names += (names.empty() ? "" : "; ") + why;
      }
      if (n > kNamedInError) names += "; and " + std::to_string(n - kNamedInError) + " more";
      throw Error(
          e.code(), std::string(e.what()) + "; left out: " + names,
          data_in_the_way_
              ? "\"overwrite\": true in the request (guestagent replicate or retry with --overwrite) takes hosts "
                "with data too, and replaces their data"
              : e.hint());
    }
    std::erase_if(spare, [&](const Instance& host) {
      return good_.count(host.id) != 0 || std::find(picked.begin(), picked.end(), host.id) == picked.end();
    });
    if (spare.empty()) return;
    ask(spare, stop);
    if (stop.stop_requested()) throw Error(Code::cancelled, "the controller stops");
  }
}

State::Pick GoodHosts::pick() const {
  return [this](const std::vector<Instance>& spare, const HostTemplate& wanted, int count) {
    std::vector<Instance> among;
    std::copy_if(spare.begin(), spare.end(), std::back_inserter(among),
                 [&](const Instance& host) { return good_.count(host.id) != 0; });
    return pick_hosts(among, wanted, count);
  };
}

}  // namespace guestagent::controller
