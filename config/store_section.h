// What the configuration and the checks of a host know of a kind of store without knowing the store.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/own_settings.h"
#include "config/yaml.h"

namespace guestagent {

// What a store's settings name on this host. Keys are whole ones: "storage.swift.key_file".
struct StoreNeeds {
  struct File {
    std::string key;
    std::filesystem::path path;
    bool secret = false;  // must be closed to others; else it must be readable
  };
  std::vector<File> files;  // those that are set
  struct Place {
    std::string key;
    std::filesystem::path path;
  };
  std::optional<Place> place;         // the directory of this host where it keeps objects
  std::vector<std::string> warnings;  // of what is allowed and dangerous
};

// A section "storage.NAME". storage/stores.h has all of them.
struct StoreSection {
  std::string_view name;
  // Reads and checks the section into `out`. `selected`: this store is the configured one, so what it cannot do without
  // is required.
  void (*read)(YamlReader& in, OwnSettings& out, bool selected);
  // Opens nothing.
  StoreNeeds (*describe)(const OwnSettings& own);
};
using StoreSections = std::span<const StoreSection>;

}  // namespace guestagent
