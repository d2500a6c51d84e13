// What the controller's own YAML file says, checked. config/controller.yaml documents each key; the defaults stand here
// and there alike (a test holds them together).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/log.h"

namespace guestagent {

struct ControllerTlsSettings {             // of the controller's own TCP listener
  std::filesystem::path certificate, key;  // both or none; none: plain HTTP, on loopback only
  std::filesystem::path client_ca;         // clients with a certificate of this CA need no token
  std::filesystem::path client_crl;        // what that CA and those below it have revoked; empty: not checked
  std::vector<std::string> allow_names;    // common or DNS names of such certificates; empty: any
};

struct AgentAccessSettings {
  std::filesystem::path ca_file, certificate, key;             // without ca_file no agent is spoken to by https
  std::vector<std::string> socket_dirs = {"/run/guestagent"};  // agents' sockets stand below one of these …
  std::vector<std::string> socket_users;  // … and belong to a process of root, of this user, or of one of these
  bool allow_plain_http = false;          // http:// to agents on this host: nobody proves who they are
  Millis call_timeout{15000};
  Millis lost_after{300000};  // silence after which a task gives an agent up
  Millis busy_timeout{3600000};
  Millis job_poll{1000};
  unsigned parallel_attaches = 4;
};

struct ProvisionerSettings {
  std::string kind = "pool";  // pool | exec
  std::vector<std::string> command, cleanup_command;
  Millis timeout{1800000};
};

struct MonitorSettings {
  Millis interval{5000};
  Millis lag_limit{60000};
  Millis history{900000};  // of lag, for the page
  unsigned event_days = 90;
  unsigned task_days = 90;
};

struct ControllerSettings {
  std::filesystem::path socket = "/run/guestagent-controller/controller.sock";
  unsigned socket_mode = 0660;
  std::vector<std::string> allow_users, allow_groups;  // who may use the socket beside root and the own user
  std::string listen;                                  // by TCP, for the page; empty: off
  ControllerTlsSettings tls;
  std::filesystem::path token_file;  // of the bearer token that TCP asks for
  std::filesystem::path state = "/var/lib/guestagent-controller/state.db";
  LogLevel log_level = LogLevel::info;
  LogFormat log_format = LogFormat::logfmt;
  AgentAccessSettings agents;
  ProvisionerSettings provisioner;
  MonitorSettings monitor;
};

inline constexpr const char* kControllerConfig = "/etc/guestagent/controller.yaml";

// As load_settings() and parse_settings() of config/settings.h.
ControllerSettings load_controller_settings(const std::filesystem::path& file);
ControllerSettings parse_controller_settings(std::string_view yaml, std::string_view name);

// Of "127.0.0.1:8779" or "[::1]:8779". Throws Error(invalid_argument).
struct ListenAddress {
  std::string host;
  std::uint16_t port = 0;
  bool loopback() const;
};
ListenAddress parse_listen_address(std::string_view text);

}  // namespace guestagent
