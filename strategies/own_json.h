// What only one datastore understands, on its way through those who serve every one.
#pragma once

#include <string>

#include "base/json.h"

namespace guestagent {

// One JSON object as compact text: carried, shown and compared, but read only by the datastore whose it is. Made where
// it enters (parsed once, by who read the request or the file around it) or by the datastore.
class OwnJson {
 public:
  OwnJson() = default;  // {}
  // REQUIRES: `object` is the text of one JSON object without white space around its names, as JsonWriter makes it.
  explicit OwnJson(std::string object) : text_(std::move(object)) {}
  static OwnJson of(const JsonReader& object) { return OwnJson(to_json(object.value())); }

  const std::string& text() const { return text_; }
  // Of text: whoever wants equal things to be equal makes them by one writer.
  bool operator==(const OwnJson&) const = default;

 private:
  std::string text_ = "{}";
};

}  // namespace guestagent
