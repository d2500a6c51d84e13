#include "controller/provision.h"

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <set>

#include "base/child.h"
#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "controller/agent_address.h"

namespace guestagent::controller {
namespace {

bool has_nics(const std::string& host, const std::string& wanted) {
  const JsonDocument have = parse_json(host, "nics"), want = parse_json(wanted, "nics");
  return std::all_of(want.Begin(), want.End(), [&](const JsonValue& nic) {
    return std::any_of(have.Begin(), have.End(), [&](const JsonValue& other) { return nic == other; });
  });
}

struct Property {
  std::string wanted;  // in words
  std::function<bool(const HostTemplate&)> fits;
  std::function<std::string(const HostTemplate&)> shown;
};

std::vector<Property> properties(const HostTemplate& wanted) {
  std::vector<Property> out;
  if (!wanted.flavor.empty()) {
    out.push_back({"flavor " + printable(wanted.flavor),
                   [wanted](const HostTemplate& h) { return h.flavor == wanted.flavor; },
                   [](const HostTemplate& h) { return h.flavor; }});
  }
  if (!wanted.availability_zone.empty()) {
    out.push_back({"availability_zone " + printable(wanted.availability_zone),
                   [wanted](const HostTemplate& h) { return h.availability_zone == wanted.availability_zone; },
                   [](const HostTemplate& h) { return h.availability_zone; }});
  }
  if (wanted.volume_size != 0) {
    out.push_back(
        {"volume size " + std::to_string(wanted.volume_size) + " GiB or more",
         [wanted](const HostTemplate& h) { return h.volume_size >= wanted.volume_size; },
         [](const HostTemplate& h) { return h.volume_size == 0 ? "" : std::to_string(h.volume_size) + " GiB"; }});
  }
  if (wanted.nics != "[]") {
    out.push_back({"nics " + printable(wanted.nics),
                   [wanted](const HostTemplate& h) { return has_nics(h.nics, wanted.nics); },
                   [](const HostTemplate& h) { return h.nics; }});
  }
  return out;
}

std::string words_of(const std::vector<Property>& wanted) {
  std::string out;
  for (const Property& property : wanted) out += (out.empty() ? "" : ", ") + property.wanted;
  return out;
}

Error none_fits(const std::vector<Instance>& spare, const std::vector<Property>& wanted, std::size_t fitting,
                int count) {
  const std::string doing = "picking " + std::to_string(count) + (count == 1 ? " host" : " hosts") + " from the pool: ";
  const std::string hint = "register hosts without data (POST /instances), or ask for fewer or others";
  if (spare.empty()) return Error(Code::failed_precondition, doing + "no registered host is free", hint);
  for (const Property& property : wanted) {
    if (std::any_of(spare.begin(), spare.end(), [&](const Instance& i) { return property.fits(i.host); })) continue;
    std::set<std::string> there;
    for (const Instance& instance : spare) {
      const std::string shown = property.shown(instance.host);
      there.insert(shown.empty() ? "not stated" : shown);
    }
    std::string list;
    for (const std::string& shown : there) list += (list.empty() ? "" : ", ") + shown;
    return Error(Code::failed_precondition, doing + property.wanted + ": no free host has it (there are: " + list + ")",
                 hint);
  }
  std::string why = "only " + std::to_string(fitting) + " of the " + std::to_string(spare.size()) + " free hosts " +
                    (fitting == 1 ? "fits" : "fit");
  if (!wanted.empty()) why += " (" + words_of(wanted) + ")";
  return Error(Code::failed_precondition, doing + why, hint);
}

class Pool : public Provisioner {
 public:
  bool makes_hosts() const override { return false; }
  std::string make(const Instance& instance, bool, std::stop_token) override {
    throw Error(Code::failed_precondition, "making a host for " + instance.name + ": provisioner.kind is pool",
                "set provisioner.kind back to exec to finish what was begun with it");
  }
  void remove(const Instance&, std::stop_token) override {}
};

std::vector<std::string> own_environment() {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) out.emplace_back(*entry);
  return out;
}

class Exec : public Provisioner {
 public:
  Exec(const ProvisionerSettings& settings, const AgentAccessSettings& agents) : settings_(settings), agents_(agents) {}
  bool makes_hosts() const override { return true; }

  std::string make(const Instance& instance, bool again, std::stop_token stop) override {
    if (again) remove(instance, stop);
    const std::string printed = run(settings_.command, "create", instance, stop);
    const std::string address = last_line(printed);
    with_context("making the host " + instance.name + ": what the command printed last",
                 [&] { agent_address(address, agents_); });
    return address;
  }

  void remove(const Instance& instance, std::stop_token stop) override {
    if (!settings_.cleanup_command.empty()) run(settings_.cleanup_command, "delete", instance, stop);
  }

 private:
  static std::string last_line(const std::string& text) {
    const std::size_t end = text.find_last_not_of(" \t\r\n");
    if (end == std::string::npos) return "";
    const std::size_t begin = text.find_last_of('\n', end);
    return text.substr(begin == std::string::npos ? 0 : begin + 1,
                       end - (begin == std::string::npos ? 0 : begin + 1) + 1);
  }

  std::string run(std::vector<std::string> argv, const std::string& action, const Instance& instance,
                  std::stop_token stop) {
    JsonWriter out;
    out.begin_object().member("id", instance.id).member("name", instance.name).member("flavor", instance.host.flavor);
    out.member("availability_zone", instance.host.availability_zone).member("volume_size", instance.host.volume_size);
    out.key("nics").raw(instance.host.nics).end_object();
    argv.push_back(action);
    argv.push_back(out.text());
    return with_context((action == "create" ? "making the host " : "removing the host ") + instance.name, [&] {
      return run_and_read({.argv = std::move(argv), .env = own_environment()}, settings_.timeout, 1 << 20, stop);
    });
  }

  ProvisionerSettings settings_;
  AgentAccessSettings agents_;
};

}  // namespace

std::vector<std::string> pick_hosts(const std::vector<Instance>& spare, const HostTemplate& wanted, int count) {
  const std::vector<Property> all = properties(wanted);
  std::vector<const Instance*> fitting;
  for (const Instance& instance : spare) {
    if (std::all_of(all.begin(), all.end(), [&](const Property& p) { return p.fits(instance.host); }))
      fitting.push_back(&instance);
  }
  if (fitting.size() < static_cast<std::size_t>(count)) throw none_fits(spare, all, fitting.size(), count);
  // Hosts on which something failed come last, as they do in `spare`; a volume that is asked for is used
  // well.
  std::stable_sort(fitting.begin(), fitting.end(), [&](const Instance* a, const Instance* b) {
    if (a->last_error.empty() != b->last_error.empty()) return a->last_error.empty();
    return wanted.volume_size != 0 && a->host.volume_size < b->host.volume_size;
  });
  std::vector<std::string> out;
  for (int n = 0; n < count; ++n) out.push_back(fitting[static_cast<std::size_t>(n)]->id);
  return out;
}

std::unique_ptr<Provisioner> make_provisioner(const ProvisionerSettings& settings, const AgentAccessSettings& agents) {
  if (settings.kind == "exec") return std::make_unique<Exec>(settings, agents);
  return std::make_unique<Pool>();
}

}  // namespace guestagent::controller
