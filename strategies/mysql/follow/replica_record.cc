#include "strategies/mysql/follow/replica_record.h"

#include "base/host_name.h"
#include "base/json.h"

namespace guestagent::mysql {
namespace {

fs::path file_in(const fs::path& state_dir) {
  return state_dir / "replica.json";
}

}  // namespace

void save_replica_record(const fs::path& state_dir, const ReplicaRecord& record) {
  JsonWriter out;
  out.begin_object();
  out.member("host", record.host).member("port", unsigned{record.port}).member("user", record.user);
  out.member("password", record.password.reveal()).member("tls", record.tls).member("own_gtid", record.own_gtid);
  out.end_object();
  std::error_code ignored;
  if (!fs::exists(state_dir, ignored)) make_dir(state_dir, 0700);
  write_file_atomic(file_in(state_dir), out.text(), 0600);
}

std::optional<ReplicaRecord> load_replica_record(const fs::path& state_dir) {
  const fs::path file = file_in(state_dir);
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  const JsonDocument document = parse_json(read_file(file), file.string());
  const JsonReader in(document, file.string(), Code::data_loss);
  ReplicaRecord out;
  out.host = HostName::require(file.string() + ": host", in.string("host")).text();
  out.port = static_cast<std::uint16_t>(in.uint("port", 1, 65535));
  out.user = in.string("user");
  out.password = Secret(in.string("password"));
  out.tls = in.opt_boolean("tls").value_or(false);
  out.own_gtid = in.opt_string("own_gtid").value_or("");
  return out;
}

void remove_replica_record(const fs::path& state_dir) {
  remove_tree(file_in(state_dir));
}

ConnectTarget source_target(const ReplicaRecord& record, const fs::path& ca_file, Millis connect_timeout) {
  ConnectTarget out;
  out.host = record.host;
  out.port = record.port;
  out.user = record.user;
  out.password = record.password;
  out.tls = record.tls;
  out.ca_file = ca_file;
  out.verify = record.tls && !ca_file.empty();
  out.connect_timeout = connect_timeout;
  out.read_timeout = Seconds(30);
  return out;
}

}  // namespace guestagent::mysql
