#include "storage/snapshot_journal.h"

#include "base/json.h"

namespace guestagent {

std::string write_objects_step(const ObjectsStep& step) {
  JsonWriter json;
  json.begin_object().member("snapshot_id", step.snapshot_id);
  if (!step.spill.empty()) json.member("spill", step.spill);
  json.member("href", step.href).member("token", step.token).member("claimed", step.claimed);
  if (!step.manifest_sha256.empty()) json.member("manifest_sha256", step.manifest_sha256);
  if (step.found) json.key("found").raw(write_claim(*step.found));
  return json.end_object().text();
}

ObjectsStep read_objects_step(std::string_view text) {
  const JsonDocument document = parse_json(text, "journal step objects");
  const JsonReader in(document, "objects", Code::internal);
  ObjectsStep step;
  step.snapshot_id = in.string("snapshot_id");
  step.spill = in.opt_string("spill").value_or("");
  step.href = in.opt_string("href").value_or("");
  step.token = in.opt_string("token").value_or("");
  step.claimed = in.opt_boolean("claimed").value_or(false);
  step.manifest_sha256 = in.opt_string("manifest_sha256").value_or("");
  if (const auto found = in.opt_object("found")) step.found = read_claim_text(to_json(found->value()));
  return step;
}

}  // namespace guestagent
