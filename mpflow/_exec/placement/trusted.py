"""Which code of others a moved node may use: what of the standard library and of known packages gives the same anywhere.

A name that is not here is not bad; it is not known to be good. What is here keeps no state that a caller could see
change, and does not look at what differs between two processes of one program.
"""

from __future__ import annotations

import sys
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STANDARD: Final = frozenset(sys.stdlib_module_names)

# Whole modules. Caches that only save time (`re`) are no state.
_PURE: Final = _words("""
    _ast _bisect _bz2 _collections _collections_abc _csv _datetime _functools _hashlib _heapq _io _json _lzma
    _md5 _operator _pydatetime _sha1 _sha2 _sha256 _sha3 _sha512 _blake2 _sre _statistics _strptime _struct _weakrefset _zoneinfo
    abc array ast base64 binascii bisect bz2 calendar cmath collections collections.abc colorsys contextlib copy
    copyreg csv dataclasses datetime difflib dis encodings enum errno fnmatch fractions functools genericpath graphlib
    gzip hashlib heapq hmac html html.entities html.parser io itertools json json.decoder json.encoder json.scanner
    keyword lzma math numbers opcode operator posixpath ntpath os.path quopri re re._compiler re._parser sre_compile
    sre_parse re._casefix re._constants stat _stat statistics string stringprep struct symtable textwrap token tokenize _tokenize
    types typing unicodedata urllib.parse xml.sax.saxutils zlib zoneinfo zoneinfo._common typing_extensions
    """)

_PATHS: Final = frozenset({"PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath"})

# Of other modules these names alone.
_NAMES: Final = {
    "os": _words(
        "fspath fsencode fsdecode stat lstat listdir scandir walk access sep altsep linesep extsep pathsep curdir pardir "
        "name devnull PathLike DirEntry stat_result R_OK F_OK W_OK X_OK strerror cpu_count"
    ),
    "decimal": _words(
        "Decimal Context localcontext DecimalTuple ROUND_UP ROUND_DOWN ROUND_CEILING ROUND_FLOOR ROUND_HALF_UP "
        "ROUND_HALF_DOWN ROUND_HALF_EVEN ROUND_05UP MAX_PREC MAX_EMAX MIN_EMIN MIN_ETINY"
    ),
    "posix": _words("fspath stat lstat listdir scandir access DirEntry strerror cpu_count"),
    "time": _words("sleep time time_ns monotonic monotonic_ns perf_counter perf_counter_ns struct_time"),
    "random": frozenset({"Random"}),
    "_random": frozenset({"Random"}),
    "uuid": frozenset({"UUID", "uuid3", "uuid5", "NAMESPACE_DNS", "NAMESPACE_URL", "NAMESPACE_OID", "NAMESPACE_X500"}),
    "sys": _words("maxsize byteorder float_info int_info hash_info version_info version platform maxunicode"),
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "xml.etree.ElementTree": _words("fromstring fromstringlist XML Element SubElement tostring QName ParseError"),
    "http": frozenset({"HTTPStatus", "HTTPMethod"}),
    "glob": frozenset({"glob", "iglob", "escape"}),
    "threading": frozenset({"Lock", "RLock"}),
    "_thread": frozenset({"lock", "RLock", "allocate_lock"}),
    "mpflow.types": frozenset({"Send", "Command", "Overwrite"}),
    "mpflow.errors": frozenset({"InvalidUpdateError"}),
}

_EXCEPT: Final = {
    "functools": frozenset({"lru_cache", "cache", "cached_property", "singledispatch", "singledispatchmethod"}),
    "_functools": frozenset({"_lru_cache_wrapper"}),
    "contextlib": frozenset({"redirect_stdout", "redirect_stderr", "chdir"}),
    "io": frozenset({"open", "open_code", "FileIO"}),
    "_io": frozenset({"open", "open_code", "FileIO"}),
    "re": frozenset({"purge"}),
    "array": frozenset({"_array_reconstructor"}),
    "itertools": frozenset(),
    "copyreg": frozenset({"pickle", "add_extension", "remove_extension", "clear_extension_cache"}),
    "csv": frozenset({"register_dialect", "unregister_dialect", "field_size_limit"}),
    "_csv": frozenset({"register_dialect", "unregister_dialect", "field_size_limit"}),
    "calendar": frozenset({"setfirstweekday"}),
    "urllib.parse": frozenset({"clear_cache"}),
    "posixpath": frozenset({"expanduser", "expandvars"}),
    "ntpath": frozenset({"expanduser", "expandvars"}),
}

# Packages, by their first name: computing libraries without state of their own but for what is taken out.
_PACKAGES: Final = {
    "numpy": _words(
        "random seterr setbufsize set_printoptions set_string_function seterrcall save savez savez_compressed savetxt "
        "memmap errstate getbufsize geterr"
    ),
    "scipy": frozenset({"stats", "io"}),
    "pandas": _words(
        "set_option reset_option option_context options describe_option register_option _config set_eng_float_format "
        "read_sql read_sql_query read_sql_table read_clipboard read_gbq plotting sql clipboard clipboards pytables excel testing HDFStore ExcelFile ExcelWriter eval tseries "
        "extensions register_dataframe_accessor register_series_accessor register_index_accessor register_extension_dtype"
    ),
    "regex": frozenset({"purge"}),
    "orjson": frozenset(),
    "msgpack": frozenset(),
    "rapidfuzz": frozenset(),
    "xxhash": frozenset(),
    "zstandard": frozenset(),
    "lz4": frozenset(),
    "brotli": frozenset(),
}
_GENERATORS: Final = frozenset({"Generator", "PCG64", "MT19937", "SeedSequence", "default_rng", "RandomState"})

BUILTINS: Final = _words("""
    abs aiter all anext any ascii bin bool bytearray bytes callable chr classmethod complex dict divmod enumerate filter float
    format frozenset getattr hasattr hex int isinstance issubclass iter len list map max memoryview min next object oct ord
    pow property range repr reversed round set slice sorted staticmethod str sum super tuple type zip
    NotImplemented Ellipsis None True False __debug__ __build_class__ __name__ open
    """)
"""Builtin names that depend on their arguments alone; exceptions are allowed besides. ``open`` is looked at more closely."""

REACHING: Final = _words("""
    __globals__ __dict__ __closure__ __code__ __defaults__ __kwdefaults__ __builtins__ __subclasses__
    __self__ __func__ __getattribute__ __reduce__ __reduce_ex__ f_globals f_locals f_back
    gi_frame cr_frame tb_frame cell_contents expanduser expandvars __setattr__ __delattr__ __loader__ __spec__ __import__ __hash__ __annotations__
    """)
"""Attributes through which code gets at what it does not name."""

WRITING: Final = _words("""
    write_text write_bytes unlink mkdir rmdir touch symlink_to hardlink_to link_to chmod lchmod to_csv to_parquet
    to_pickle to_sql to_excel to_hdf to_feather to_orc to_stata to_gbq to_clipboard to_json to_html to_xml tofile register
    """)
"""Methods of whatever object that write outside the process, or into what all of it shares."""

NAMING: Final = frozenset({"format", "format_map", "vformat", "query", "eval"})
"""Methods that look up names in a text."""


def is_standard(module: str) -> bool:
    return module.partition(".")[0] in _STANDARD or module == "builtins"


def is_known(module: str) -> bool:
    """Whether code of this module is judged by name, and not by reading it."""
    root = module.partition(".")[0]
    if root == "mpflow":
        return not module.startswith("mpflow.demo")  # an example of what users write
    return is_standard(module) or root in _PACKAGES or root in ("langgraph", "langchain_core")


def allows(module: str, name: str) -> bool:
    """Whether `name` of a known module gives the same in every process of a program."""
    first = name.partition(".")[0]
    root = module.partition(".")[0]
    if root in _PACKAGES:
        parts = set(module.split(".")) | {first}
        if "random" in parts and root == "numpy":
            return first in _GENERATORS
        return parts.isdisjoint(_PACKAGES[root]) and first.lstrip("_") not in _PACKAGES[root]
    if module in _NAMES:
        return first in _NAMES[module]
    if module in _EXCEPT and first in _EXCEPT[module]:
        return False
    return module in _PURE or module.startswith(("encodings.", "collections."))
