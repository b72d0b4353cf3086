"""Which raw column is which field: likeness of names and fit of values, the best pairs first.

A name alone or values alone decide only where nothing else is left; :mod:`mappings.inference` then says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from mappings import hints
from mappings.mapping import IGNORED
from mappings.model import Material, Role
from mappings.profile import Profile
from mappings.schemes import SCHEMES

NUMBER_ENDINGS = ("号", "编号", "号码", "证号", "字号")  # 居住证编号
KINDS = "id-type"  # the shared code list from a department's kinds of number to schemes
SURE, MOST, LIKELY = 0.9, 0.8, 0.5


def fields(material: Material) -> list[str]:
    """What mapping.csv can fill, holders first; a holder's scheme and value are filled by one line."""
    holders = [part for role in material.holders for part in (f"holder.{role}", f"holder.{role}.name")]
    return [*holders, *(name for name in material.columns() if not name.startswith("holder."))]


def assigned(material: Material, profiles: Sequence[Profile]) -> dict[str, Profile]:
    """The best pairs first, each field and each column once; then what only one column can be, and what shares one."""
    targets = fields(material)
    scores = {(target, profile.name): _score(material, target, profile) for target in targets for profile in profiles}
    known = {profile.name: profile for profile in profiles}
    chosen: dict[str, Profile] = {}
    taken: set[str] = set()
    for target, name in sorted(scores, key=lambda pair: -scores[pair]):  # of equals, the envelope's field comes first
        if scores[target, name] > 0 and target not in chosen and name not in taken:
            chosen[target] = known[name]
            taken.add(name)
    for target in targets:
        left = [profile for profile in profiles if profile.name not in taken and _alone(material, target, profile)]
        if target not in chosen and len(left) == 1:
            chosen[target] = left[0]
            taken.add(left[0].name)
    for target in targets:  # a field that is called exactly like a column which another has already
        if not target.startswith("holder.") and target not in chosen:
            best = max(profiles, key=lambda profile: scores[target, profile.name], default=None)
            if best and scores[target, best.name] and likeness(material, target, best.name) >= SURE:
                chosen[target] = best
    return chosen | _shared_holders(material, chosen, profiles)


def _shared_holders(material: Material, chosen: dict[str, Profile], profiles: Sequence[Profile]) -> dict[str, Profile]:
    """An owner is a person or an organisation, in one column with the kind beside it: each line takes its own."""
    found = {}
    for role, described in material.holders.items():
        for other, profile in [(name, chosen.get(f"holder.{name}")) for name in material.holders]:
            if profile is None or f"holder.{role}" in chosen or material.holders[other].kind == described.kind:
                continue
            if profile.identifier(described.schemes) and kinds_of(profile, profiles):
                found[f"holder.{role}"] = profile
                if f"holder.{other}.name" in chosen:
                    found[f"holder.{role}.name"] = chosen[f"holder.{other}.name"]
    return found


def _score(material: Material, target: str, profile: Profile) -> float:
    """Likeness of the name and fit of the values; 0 where either says no."""
    fit = _fit(material, target, profile)
    alike = likeness(material, target, profile.name)
    return alike + fit if fit > 0 and alike >= LIKELY else 0.0


def likeness(material: Material, target: str, name: str) -> float:
    """How much a column's name sounds like the field, 0 to 1."""
    words = hints.words()
    if target.startswith("holder."):
        role = target.split(".")[1]
        ending = "name" if target.endswith(".name") else "value"
        meant = words[f"holder.{ending}"]
        if ending == "value" and material.holders[role].kind == "organisation":
            meant += words["holder.organisation"]
        return _role_like(material, role, name, meant)
    if target.startswith("attributes."):
        attribute = target.removeprefix("attributes.")
        title = material.attributes[attribute].name
        own = (title.zh, title.en.lower(), attribute)
        return hints.likeness(name, (*own, attribute.replace("_", " "), *words.get(target, ())))
    numbers = (
        tuple(f"{material.name.zh}{ending}" for ending in NUMBER_ENDINGS) if target == "certificate_number" else ()
    )
    meant = words.get(target, ())
    if target == "name" and material.holders:  # a column that is only called so names the holder
        meant = tuple(word for word in meant if word != target)
    return hints.likeness(name, (*numbers, *meant))


def _role_like(material: Material, role: str, name: str, meant: Sequence[str]) -> float:
    """Where a certificate has several holders, a column must say whose it is: 母亲姓名, ``mqxm``, ``mother_name``."""
    title = material.holders[role].name.zh
    plain = hints.folded(name)
    found = 0.0 if len(material.holders) > 1 else hints.likeness(name, meant)
    for prefix in (title, title[0], hints.initials(title), hints.folded(role)):
        if plain.startswith(prefix) and len(plain) > len(prefix):
            found = max(found, hints.likeness(plain[len(prefix) :], [hints.folded(word) for word in meant]))
    return found


def _fit(material: Material, target: str, profile: Profile) -> float:
    """0 to 1: how well the values suit the field; 0 where they cannot be it. An empty column may be anything."""
    if not profile.filled:
        return 0.1
    if target.startswith("holder."):
        return _holder_fit(material.holders[target.split(".")[1]], target, profile)
    kind = material.columns()[target]
    shares = {
        "date": profile.date, "timestamp": profile.date, "money": profile.amount, "integer": profile.integer,
        "decimal": profile.decimal, "boolean": profile.boolean,
    }  # fmt: skip
    if kind in shares:
        return shares[kind] if shares[kind] >= LIKELY else 0.0
    if target == "region":
        return profile.region if profile.region >= LIKELY else 0.0
    if target == "certificate_number":
        return 0.0 if profile.time >= LIKELY else profile.distinct / max(profile.rows * profile.filled, 1)
    if target == "status":
        return max([0.3 if profile.values else 0.0, *status_lists(profile).values()])
    return 0.2 if max(profile.time, profile.identifier(SCHEMES) if target != "issuer_code" else 0) >= SURE else 0.5


def _holder_fit(role: Role, target: str, profile: Profile) -> float:
    valid = profile.identifier(role.schemes)
    if not target.endswith(".name"):
        return valid if valid >= LIKELY else 0.0
    words = profile.organisation if role.kind == "organisation" else profile.person
    return words if words >= LIKELY and not profile.time else 0.0


def _alone(material: Material, target: str, profile: Profile) -> bool:
    """Whether the values alone speak for the field, when just one column is left that they speak for."""
    if not profile.filled:
        return False
    if target.startswith("holder."):
        role = material.holders[target.split(".")[1]]
        return _holder_fit(role, target, profile) >= MOST and not profile.codelists
    if target == "certificate_number":
        return profile.unique and max(profile.date, profile.person, profile.organisation) < LIKELY
    if target == "region":
        return profile.region >= SURE
    return target == "updated_at" and profile.time >= SURE


def kinds_of(profile: Profile, profiles: Sequence[Profile]) -> Profile | None:
    """The column of kinds that belongs to a column of numbers: of those there are, the one whose name begins most alike."""
    fitting = [other for other in profiles if other.values or other.codelists.get(KINDS, 0.0) >= LIKELY]
    named = [other for other in fitting if _ends_as_kind(other.name)]
    if not named:
        return None
    return max(named, key=lambda other: _shared_start(other.name, profile.name))


def _ends_as_kind(name: str) -> bool:
    words = hints.words()[IGNORED]
    plain = hints.folded(name)
    short = {hints.initials(word) for word in words if not word.isascii()}
    return hints.likeness(name, words) >= LIKELY or any(plain.endswith(ending) for ending in short)


def _shared_start(one: str, other: str) -> int:
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def status_lists(profile: Profile) -> dict[str, float]:
    """The shared lists of statuses that know some of the values, with the share that each knows."""
    return {name: share for name, share in profile.codelists.items() if name.endswith("-status")}
