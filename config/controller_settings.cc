#include "config/controller_settings.h"

#include <arpa/inet.h>

#include "base/error.h"
#include "base/file.h"
#include "base/host_name.h"
#include "base/text.h"
#include "config/units.h"
#include "config/yaml.h"

namespace guestagent {
namespace {

constexpr std::size_t kLongestSocketPath = 107;

void read_tls(YamlReader& in, ControllerTlsSettings& out) {
  in.path("certificate", out.certificate);
  in.path("key", out.key);
  in.path("client_ca", out.client_ca);
  in.path("client_crl", out.client_crl);
  in.words("allow_names", out.allow_names);
  if (!out.key.empty() || !out.client_ca.empty()) in.require("certificate", "when key or client_ca is set");
  if (!out.certificate.empty()) in.require("key", "when certificate is set");
  if (!out.allow_names.empty()) in.require("client_ca", "when allow_names is set");
  if (!out.client_crl.empty()) in.require("client_ca", "when client_crl is set");
}

void read_agents(YamlReader& in, AgentAccessSettings& out) {
  in.path("ca_file", out.ca_file);
  in.path("certificate", out.certificate);
  in.path("key", out.key);
  in.words("socket_dirs", out.socket_dirs);
  for (const std::string& dir : out.socket_dirs) {
    const std::filesystem::path path = dir;
    if (!path.is_absolute() || path.lexically_normal() != path || dir == "/")
      in.mistake("socket_dirs", "must be absolute paths without \"..\", and not the whole file system");
  }
  in.words("socket_users", out.socket_users);
  in.boolean("allow_plain_http", out.allow_plain_http);
  in.duration("call_timeout", out.call_timeout, Millis(100));
  in.duration("lost_after", out.lost_after, Millis(1));
  in.duration("busy_timeout", out.busy_timeout);
  in.duration("job_poll", out.job_poll, Millis(10));
  in.number("parallel_attaches", out.parallel_attaches, 1, 256);
  if (!out.certificate.empty()) in.require("key", "when certificate is set");
  if (!out.key.empty()) in.require("certificate", "when key is set");
}

void read_provisioner(YamlReader& in, ProvisionerSettings& out) {
  in.choice("kind", out.kind, {"pool", "exec"});
  in.words("command", out.command);
  in.words("cleanup_command", out.cleanup_command);
  in.duration("timeout", out.timeout, Millis(1));
  if (out.kind == "exec") in.require("command", "when kind is exec");
}

void read_monitor(YamlReader& in, MonitorSettings& out) {
  in.duration("interval", out.interval, Millis(10));
  in.duration("lag_limit", out.lag_limit);
  in.duration("history", out.history);
  in.number("event_days", out.event_days, 1, 3650);
  in.number("task_days", out.task_days, 1, 3650);
  if (out.history / out.interval > 10000) in.mistake("history", "must be at most 10000 times the interval");
}

void check_listen_address(YamlReader& in, const ControllerSettings& settings) {
  if (settings.socket.string().size() > kLongestSocketPath)
    in.mistake("socket", "must not be longer than 107 bytes, the limit of socket paths");
  if (settings.listen.empty()) {
    if (!settings.tls.certificate.empty()) in.require("listen", "when tls.certificate is set");
    return;
  }
  ListenAddress address;
  try {
    address = parse_listen_address(settings.listen);
  } catch (const Error& e) {
    in.mistake("listen", e.what());
    return;
  }
  if (!address.loopback() && settings.tls.certificate.empty())
    in.mistake("listen", "needs tls.certificate and tls.key where it is not loopback");
  // Also on loopback: every user of this host, and every page in a browser here, reaches that.
  if (settings.token_file.empty() && settings.tls.client_ca.empty())
    in.mistake("listen", "needs token_file or tls.client_ca: whoever reaches it has all the powers of the agents");
}

}  // namespace

bool ListenAddress::loopback() const {
  const auto name = HostName::parse(host);
  return name && name->is_loopback();
}

ListenAddress parse_listen_address(std::string_view text) {
  const auto bad = [&] {
    return Error(Code::invalid_argument,
                 "\"" + printable(text) + "\" is not ADDRESS:PORT, such as 127.0.0.1:8779 or [::1]:8779");
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) throw bad();
  std::string_view host = text.substr(0, colon);
  const bool six = host.starts_with('[') && host.ends_with(']');
  if (six) host = host.substr(1, host.size() - 2);
  const auto port = parse_whole(text.substr(colon + 1));
  ListenAddress out{std::string(host), 0};
  in6_addr parsed;
  if (!port || *port > 65535 || ::inet_pton(six ? AF_INET6 : AF_INET, out.host.c_str(), &parsed) != 1) throw bad();
  out.port = static_cast<std::uint16_t>(*port);
  return out;
}

ControllerSettings parse_controller_settings(std::string_view yaml, std::string_view name) {
  ControllerSettings out;
  YamlReport report(name);
  const YamlNode root = parse_yaml(yaml, name);
  YamlReader in(&root, "", root.line, report);
  in.section("controller", [&](YamlReader& c) {
    c.path("socket", out.socket);
    c.mode("socket_mode", out.socket_mode);
    c.words("allow_users", out.allow_users);
    c.words("allow_groups", out.allow_groups);
    c.text("listen", out.listen);
    c.section("tls", [&](YamlReader& tls) { read_tls(tls, out.tls); });
    c.path("token_file", out.token_file);
    c.path("state", out.state);
    c.section("log", [&](YamlReader& log) {
      std::string level = "info", format = "logfmt";
      log.choice("level", level, {"debug", "info", "warning", "error"});
      log.choice("format", format, {"logfmt", "json"});
      out.log_level = log_level_from(level);
      out.log_format = format == "json" ? LogFormat::json : LogFormat::logfmt;
    });
    c.section("agents", [&](YamlReader& agents) { read_agents(agents, out.agents); });
    c.section("provisioner", [&](YamlReader& provisioner) { read_provisioner(provisioner, out.provisioner); });
    c.section("monitor", [&](YamlReader& monitor) { read_monitor(monitor, out.monitor); });
    check_listen_address(c, out);
  });
  in.finish();
  report.throw_if_any();
  return out;
}

ControllerSettings load_controller_settings(const std::filesystem::path& file) {
  return parse_controller_settings(
      with_context("reading the configuration", [&] { return read_trusted_file(file, kMaxYamlBytes); }), file.string());
}

}  // namespace guestagent
