#include "controller/monitor.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/json.h"
#include "base/log.h"
#include "base/text.h"

namespace guestagent::controller {
namespace {

constexpr unsigned kThreads = 8;
constexpr int kMisses = 2;        // in a row, before an agent counts as unreachable
constexpr int kLongestAway = 12;  // intervals, for one that does not answer

int badness(Verdict verdict) {
  switch (verdict) {
    case Verdict::broken:
    case Verdict::diverged:
    case Verdict::unreachable:
      return 2;
    case Verdict::lagging:
      return 1;
    default:
      return 0;
  }
}

bool is_followed_up(const Instance& instance) {
  return !instance.address.empty() && instance.state != InstanceState::failed;
}

}  // namespace

LiveStatus judge(const std::string& answer, bool is_member, std::uint64_t expected_source, Millis lag_limit) {
  const JsonDocument document = parse_json(answer, "the status");
  const JsonReader in(document, "status", Code::internal);
  LiveStatus out;
  out.raw = answer;
  out.reasons = in.strings("reasons");
  if (const auto said = in.opt_string("verdict")) {
    const auto known = from_text<Verdict>(*said);
    out.verdict = known.value_or(Verdict::unknown);
    if (!known) out.reasons.push_back("its agent says " + printable(*said) + ", which this controller does not know");
  }
  const auto role = from_text<Role>(in.opt_string("role").value_or(""));
  out.lag_seconds = in.opt_number("lag_seconds");
  out.lag_transactions = in.opt_uint("lag_transactions");
  out.read_only = in.opt_boolean("read_only");
  if (const auto source = in.opt_object("source"); source && role == Role::replica)
    out.follows = source->opt_uint("server_id").value_or(0);
  if (!is_member) return out;
  if (out.verdict == Verdict::standalone || (out.verdict == Verdict::source && role && role != Role::replica)) {
    out.verdict = Verdict::broken;
    out.reasons.emplace_back("the topology says that it is a replica, its server follows nobody");
    return out;
  }
  if (const auto source = in.opt_object("source"); source && expected_source != 0) {
    const auto followed = source->opt_uint("server_id").value_or(0);
    if (followed != 0 && followed != expected_source && out.verdict != Verdict::broken) {
      out.verdict = Verdict::diverged;
      out.reasons.push_back("it follows server_id " + std::to_string(followed) + ", its source in the topology has " +
                            std::to_string(expected_source));
    }
  }
  if ((out.verdict == Verdict::healthy || out.verdict == Verdict::source) && out.lag_seconds &&
      *out.lag_seconds * 1000 > static_cast<double>(lag_limit.count())) {
    out.verdict = Verdict::lagging;
    out.reasons.push_back("further behind than the controller's limit of " + std::to_string(lag_limit.count() / 1000) +
                          " s");
  }
  return out;
}

struct Monitor::Shared {
  Shared(State& s, Agents& a, Live& l, const ControllerSettings& c, Clock& k)
      : state(s), agents(a), live(l), settings(c), clock(k) {}
  State& state;
  Agents& agents;
  Live& live;
  const ControllerSettings& settings;
  Clock& clock;

  std::mutex mutex;
  std::condition_variable_any wake;
  std::deque<Instance> due;
  std::set<std::string> busy;  // due or being looked at
  struct Seen {
    int misses = 0;
    std::optional<Verdict> told;  // the verdict of the last event
    std::uint64_t reported = 0;
  };
  std::map<std::string, Seen> seen;
  std::map<std::string, Member> members;
  std::map<std::string, std::uint64_t> server_ids;  // as reported or given, by instance
  std::vector<std::jthread> threads;

  void plan(std::stop_token stop);
  void work(std::stop_token stop, Monitor& monitor);
  void tell(const Instance& instance, const LiveStatus& status, bool is_member);
};

Monitor::Monitor(State& state, Agents& agents, Live& live, const ControllerSettings& settings, Clock& clock)
    : shared_(std::make_unique<Shared>(state, agents, live, settings, clock)) {}

Monitor::~Monitor() {
  shut_down();
}

void Monitor::start() {
  shared_->threads.emplace_back([this](std::stop_token stop) { shared_->plan(stop); });
  for (unsigned n = 0; n < kThreads; ++n) {
    shared_->threads.emplace_back([this](std::stop_token stop) { shared_->work(stop, *this); });
  }
}

void Monitor::shut_down() {
  for (std::jthread& thread : shared_->threads) thread.request_stop();
  shared_->threads.clear();
}

void Monitor::Shared::plan(std::stop_token stop) {
  std::uint64_t round = 0;
  do {
    ++round;
    try {
      const auto instances = state.instances();
      const auto follow = state.members();
      std::lock_guard lock(mutex);
      members.clear();
      for (const Member& member : follow) members.emplace(member.instance_id, member);
      server_ids.clear();
      for (const Instance& instance : instances) {
        server_ids[instance.id] = instance.reported_server_id != 0 ? instance.reported_server_id : instance.server_id;
        if (!is_followed_up(instance) || busy.count(instance.id) != 0) continue;
        const int misses = seen[instance.id].misses;
        const auto every =
            static_cast<std::uint64_t>(misses <= kMisses ? 1 : std::min(misses - kMisses + 1, kLongestAway));
        if (round % every != 0) continue;
        due.push_back(instance);
        busy.insert(instance.id);
      }
      std::erase_if(seen, [&](const auto& entry) { return server_ids.count(entry.first) == 0; });
      wake.notify_all();
    } catch (const std::exception& e) {
      log_error("planning the looks at agents failed", {{"error", e.what()}});
    }
  } while (clock.sleep(settings.monitor.interval, stop));
}

void Monitor::Shared::work(std::stop_token stop, Monitor& monitor) {
  for (;;) {
    Instance instance;
    {
      std::unique_lock lock(mutex);
      if (!wake.wait(lock, stop, [&] { return !due.empty(); })) return;
      instance = due.front();
      due.pop_front();
    }
    try {
      monitor.look(instance, stop);
    } catch (const std::exception& e) {
      if (!stop.stop_requested())
        log_warning("a status could not be used", {{"instance", instance.name}, {"error", e.what()}});
    }
    std::lock_guard lock(mutex);
    busy.erase(instance.id);
  }
}

void Monitor::look(const Instance& instance, std::stop_token stop) {
  Shared& s = *shared_;
  bool is_member = false;
  std::uint64_t expected = 0;
  {
    std::lock_guard lock(s.mutex);
    const auto member = s.members.find(instance.id);
    if (member != s.members.end()) {
      is_member = true;
      expected = s.server_ids[member->second.source_id];
    }
  }
  const std::uint64_t begun = s.live.begin_look(instance.id);
  LiveStatus status;
  try {
    status = judge(s.agents.call(instance.address, "get_replication_status", "{}", stop), is_member, expected,
                   s.settings.monitor.lag_limit);
    status.seen_at = format_utc(s.clock.now());
    const JsonDocument document = parse_json(status.raw, "the status");
    const auto reported = JsonReader(document, "status", Code::internal).opt_uint("server_id").value_or(0);
    bool is_new = false;
    {
      std::lock_guard lock(s.mutex);
      Shared::Seen& seen = s.seen[instance.id];
      seen.misses = 0;
      is_new = reported != 0 && reported != instance.reported_server_id && reported != seen.reported;
      seen.reported = reported;
    }
    if (is_new) s.state.set_reported_server_id(instance.id, reported);
  } catch (const Error& e) {
    if (stop.stop_requested()) return;
    status = s.live.status(instance.id);
    {
      std::lock_guard lock(s.mutex);
      if (++s.seen[instance.id].misses < kMisses) return;
    }
    status.verdict = Verdict::unreachable;
    status.reasons = {e.what()};
    status.lag_seconds.reset();
    status.lag_transactions.reset();
  }
  if (s.live.set_status(instance.id, status, begun)) s.tell(instance, status, is_member);
}

void Monitor::look_now(const std::string& instance_id, std::stop_token stop) {
  Shared& s = *shared_;
  try {
    const auto instance = s.state.find_instance(instance_id);
    if (!instance || !is_followed_up(*instance)) return;
    const auto follow = s.state.members();
    {
      std::lock_guard lock(s.mutex);
      s.members.erase(instance_id);
      for (const Member& member : follow) {
        if (member.instance_id == instance_id) s.members.emplace(instance_id, member);
      }
    }
    look(*instance, stop);
  } catch (const std::exception& e) {
    log_warning("a status could not be used", {{"instance", instance_id}, {"error", e.what()}});
  }
}

// A change between well and not well is an event; the way between two kinds of well is a task's to tell.
void Monitor::Shared::tell(const Instance& instance, const LiveStatus& status, bool is_member) {
  std::optional<Verdict> before;
  {
    std::lock_guard lock(mutex);
    Seen& last = seen[instance.id];
    before = last.told;
    last.told = status.verdict;
  }
  if (before == status.verdict) return;
  if (badness(before.value_or(Verdict::unknown)) == 0 && badness(status.verdict) == 0) return;
  if (!is_member && status.verdict != Verdict::unreachable && before != Verdict::unreachable) return;
  std::string why;
  for (const std::string& reason : status.reasons) why += (why.empty() ? ": " : "; ") + reason;
  Event event;
  event.level = badness(status.verdict) == 2 ? "error" : badness(status.verdict) == 1 ? "warning" : "info";
  event.kind = "status";
  event.instance_id = instance.id;
  event.message =
      instance.name + " is " + to_text(status.verdict) + (before ? " (was " + to_text(*before) + ")" : "") + why;
  state.add_event(event);
}

}  // namespace guestagent::controller
