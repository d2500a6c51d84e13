#include "agent/rpc_error.h"

#include "base/json.h"

namespace guestagent {
namespace {

std::string write(const Error& error, int number, const std::string& job_id) {
  JsonWriter out;
  out.begin_object().member("code", number).member("message", error.what());
  out.key("data").begin_object().member("code", code_row(error.code()).wire);
  if (!error.hint().empty()) out.member("hint", error.hint());
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
