// Where a result lies: the run file OUT.h5 and, beside it, the folder OUT.cells with the cell files, the plan and the
// lock of who writes them.
#pragma once

#include <filesystem>
#include <string>

namespace kvlab {

// The file itself where `output` is a link to it, there or not yet. Throws InputError where links lead nowhere.
std::filesystem::path followed(const std::filesystem::path& output);

// results/runs/NAME.h5 -> results/runs/NAME.cells. Two run files never share one.
std::filesystem::path cells_folder(const std::filesystem::path& output);

std::filesystem::path cell_file(const std::filesystem::path& folder, const std::string& id);
// Whether a file or anything else of that name lies there, a link that leads nowhere included.
bool lies_there(const std::filesystem::path& path);
std::filesystem::path plan_file(const std::filesystem::path& folder);
std::filesystem::path lock_file(const std::filesystem::path& folder);

// Renames `path` to PATH.WHAT, or PATH.WHAT.2 and on where that is taken, and returns the new name. Nothing is
// overwritten. Throws Error.
std::filesystem::path set_aside(const std::filesystem::path& path, const std::string& what);

}  // namespace kvlab
