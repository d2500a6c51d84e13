#include "agent/rpc_error.h"

#include "base/json.h"

namespace guestagent {
namespace {

std::string write(const Error& error, int number, const std::string& job_id) {
  JsonWriter out;
  out.begin_object().member("code", number).member("message", error.what());
  out.key("data").begin_object().member("code", code_row(error.code()).wire);
  const std::string hint = hint_of(error);
  if (!hint.empty()) out.member("hint", hint);
  if (!job_id.empty()) out.member("job_id", job_id);
  out.end_object().end_object();
  return out.text();
}

}  // namespace

std::string write_rpc_error(const Error& error, const std::string& job_id) {
  return write(error, code_row(error.code()).rpc, job_id);
}

std::string write_rpc_error(const Error& error, int number) {
  return write(error, number, {});
}

std::string hint_of(const Error& error) {
  if (!error.hint().empty()) return error.hint();
  switch (error.code()) {
    case Code::invalid_argument:
      return "guestagent call --help lists the methods with their params";
    case Code::not_found:
      return "check how it is spelled; list_replication_snapshots and list_jobs say what there is";
    case Code::data_loss:
      return "this snapshot cannot be used: take a new one, and look for the reason at the store";
    case Code::permission_denied:
      return "check the accounts, owners and modes that the message names; guestagent check-config tries "
             "them";
    case Code::resource_exhausted:
      return "make room, or raise the limit that the message names";
    case Code::unavailable:
    case Code::deadline_exceeded:
      return "try again; guestagent check-config tells what does not answer";
    case Code::cancelled:
      return "call it again when it suits";
    case Code::internal:
      return "the agent's log tells more";
    case Code::already_exists:
    case Code::failed_precondition:
    case Code::unimplemented:
    case Code::busy:
      return {};
  }
  return {};
}

Error read_rpc_error(std::string_view json) {
  try {
    const JsonDocument document = parse_json(json, "error");
    const JsonReader in(document, "error", Code::internal);
    const auto data = in.opt_object("data");
    const Code code = code_from_wire(data ? data->opt_string("code").value_or("") : "");
    return Error(code, in.opt_string("message").value_or("no message"),
                 data ? data->opt_string("hint").value_or("") : "");
  } catch (const Error& e) {
    return Error(Code::internal, std::string("an error that cannot be read: ") + e.what());
  }
}

}  // namespace guestagent
