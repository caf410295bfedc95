// Evergreen: the names of functions, for reports.
// SPDX-License-Identifier: MIT
//
// dladdr(3) knows only what a module exports, and an executable exports next to nothing. So where it
// does not know, the symbol table of the file itself is read, if it was not stripped.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

char *swift_demangle(const char *mangled, size_t length, char *output, size_t *output_size,
                     uint32_t flags);

static char *demangled(const char *name) {
  char *readable = swift_demangle(name, strlen(name), NULL, NULL, 0);
  return readable ? readable : strdup(name);
}

#if defined(__linux__)
#include <elf.h>
#include <link.h>
#include <sys/auxv.h>

typedef ElfW(Ehdr) file_header;
typedef ElfW(Shdr) section;
typedef ElfW(Sym) symbol;

/// The name of the function at `offset` from where the module was loaded, in the module's bytes.
static char *name_in_file(const uint8_t *bytes, size_t size, uintptr_t base, uintptr_t address) {
  const file_header *header = (const file_header *)bytes;
  if (size < sizeof *header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return NULL;
  if (header->e_shoff + (size_t)header->e_shnum * sizeof(section) > size) return NULL;
  const section *sections = (const section *)(bytes + header->e_shoff);
  uintptr_t value = header->e_type == ET_EXEC ? address : address - base;
  for (int i = 0; i < header->e_shnum; i++) {
    const section *table = &sections[i];
    if (table->sh_type != SHT_SYMTAB || table->sh_link >= header->e_shnum) continue;
    const section *strings = &sections[table->sh_link];
    if (table->sh_offset + table->sh_size > size || strings->sh_offset + strings->sh_size > size) {
      return NULL;
    }
    const symbol *symbols = (const symbol *)(bytes + table->sh_offset);
    for (size_t s = 0; s < table->sh_size / sizeof(symbol); s++) {
      if (ELF64_ST_TYPE(symbols[s].st_info) != STT_FUNC || value < symbols[s].st_value ||
          value >= symbols[s].st_value + symbols[s].st_size ||
          symbols[s].st_name >= strings->sh_size) {
        continue;
      }
      return demangled((const char *)bytes + strings->sh_offset + symbols[s].st_name);
    }
  }
  return NULL;
}

static bool is_executable(const Dl_info *info) {
  Dl_info executable;
  return dladdr((const void *)getauxval(AT_ENTRY), &executable) &&
         executable.dli_fbase == info->dli_fbase;
}

static char *name_from_file(const Dl_info *info, const void *address) {
  int file = open(info->dli_fname, O_RDONLY | O_CLOEXEC);
  // The executable's own name need not be a path any more.
  if (file < 0 && is_executable(info)) file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (file < 0) return NULL;
  struct stat status;
  char *name = NULL;
  if (fstat(file, &status) == 0 && status.st_size > 0) {
    size_t size = (size_t)status.st_size;
    void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (bytes != MAP_FAILED) {
      name = name_in_file(bytes, size, (uintptr_t)info->dli_fbase, (uintptr_t)address);
      munmap(bytes, size);
    }
  }
  close(file);
  return name;
}

#else

static char *name_from_file(const Dl_info *info, const void *address) {
  (void)info, (void)address;
  return NULL;
}

#endif

char *evg_function_name(const void *address) {
  Dl_info info;
  if (!dladdr(address, &info)) return NULL;
  char *name = name_from_file(&info, address);
  if (name) return name;
  return info.dli_sname ? demangled(info.dli_sname) : NULL;
}

const char *evg_module_name(const void *address, uintptr_t *offset) {
  Dl_info info;
  if (!dladdr(address, &info) || !info.dli_fname) return NULL;
  *offset = (uintptr_t)address - (uintptr_t)info.dli_fbase;
  const char *slash = strrchr(info.dli_fname, '/');
  return slash ? slash + 1 : info.dli_fname;
}
