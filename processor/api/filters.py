"""Velocity and metadata filters: a change is in force from its commit on, for every event that is recorded later."""

import re
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from processor.api import bodies, filters_documented
from processor.api.answers import json, time_text
from processor.api.auth import FiltersReader, FiltersWriter
from processor.api.definitions import MODELS, checked, definition, given
from processor.api.documented import documented
from processor.api.errors import Refused
from processor.api.listing import WholeNumber
from processor.api.preconditions import Tags, etag, require_match
from processor.api.services import Serving
from processor.io import kept, workers
from processor.io.filters import Definition
from processor.io.kept import Editing, Kept, Kind
from schemas.filters import FILTERS_OF_A_KIND

MOST_VERSIONS = 100
_ID = re.compile(r"[a-z0-9-]{1,64}")
_PREFIXES: Mapping[Kind, str] = {"velocity": "vf", "metadata": "mf"}

router = APIRouter(tags=["filters"])
FilterId = Annotated[str, Path(description="The id of a filter.")]


class Resource:
    """The filters of one kind of an org unit."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.path = f"/{kind}-filters"

    async def list_filters(self, serving: Serving, reader: FiltersReader) -> Response:
        """Every filter of the kind, enabled first, then most recently changed."""
        found = await kept.every(serving.postgres, reader.org_unit, self.kind)
        return json([_shown(reader.org_unit, one) for one in found])

    async def create_filter(
        self, request: Request, serving: Serving, writer: FiltersWriter
    ) -> Response:
        """A new filter; without an id it is given one.  409 where a filter of either kind has the id, or there are too many."""
        wanted = await checked(partial(self._new, await bodies.read(request)))
        async with kept.editing(serving.postgres, writer.org_unit, wanted.id) as edit:
            if edit.kept:
                raise Refused(409, f"id: {wanted.id} is taken by a {edit.kept.kind} filter")
            if await edit.number(self.kind) >= FILTERS_OF_A_KIND:
                what = f"{FILTERS_OF_A_KIND} {self.kind} filters"
                raise Refused(409, f"The org unit has {what} already, the most it may have")
            await edit.write(wanted, writer.name)
        return self._answer(writer.org_unit, edit, 201)

    async def get_filter(
        self, serving: Serving, reader: FiltersReader, filter_id: FilterId
    ) -> Response:
        """A filter, with its version as `ETag`."""
        self._require_id(filter_id)
        found = await kept.one(serving.postgres, reader.org_unit, filter_id)
        one = self._mine(found)
        return json(_shown(reader.org_unit, one), headers={"ETag": etag(one.version)})

    async def replace_filter(
        self,
        request: Request,
        serving: Serving,
        writer: FiltersWriter,
        tags: Tags,
        filter_id: FilterId,
    ) -> Response:
        """Replaces a filter: what the body leaves out has its default.  It creates none: 404 where there is no such filter."""
        self._require_id(filter_id)
        wanted = await checked(partial(self._whole, await bodies.read(request), filter_id))
        async with kept.editing(serving.postgres, writer.org_unit, filter_id) as edit:
            require_match(tags, self._mine(edit.kept).version)
            await edit.write(wanted, writer.name)
        return self._answer(writer.org_unit, edit)

    async def change_filter(
        self,
        request: Request,
        serving: Serving,
        writer: FiltersWriter,
        tags: Tags,
        filter_id: FilterId,
    ) -> Response:
        """Changes the fields that the body gives, lists as a whole; the others stay."""
        self._require_id(filter_id)
        # Checked before every worker waits for this change: whatever the others are, fields are right or wrong each by itself.
        body = await bodies.read(request)
        changes, fields = await checked(partial(self._changes, body, filter_id))
        async with kept.editing(serving.postgres, writer.org_unit, filter_id) as edit:
            require_match(tags, self._mine(edit.kept).version)
            await edit.change(changes, fields, writer.name)
        return self._answer(writer.org_unit, edit)

    async def delete_filter(
        self, serving: Serving, writer: FiltersWriter, tags: Tags, filter_id: FilterId
    ) -> Response:
        """Deletes a filter.  Its versions stay, and go on should its id be used again."""
        self._require_id(filter_id)
        async with kept.editing(serving.postgres, writer.org_unit, filter_id) as edit:
            require_match(tags, self._mine(edit.kept).version)
            await edit.write(None, writer.name)
        return Response(status_code=204)

    async def list_versions(
        self,
        serving: Serving,
        reader: FiltersReader,
        filter_id: FilterId,
        page: Annotated[WholeNumber, Query(ge=1, le=1 << 31)] = 1,
        limit: Annotated[WholeNumber, Query(ge=1, le=MOST_VERSIONS)] = MOST_VERSIONS,
    ) -> Response:
        """Every change of a filter with who made it and when, newest first, of a deleted one too."""
        self._require_id(filter_id)
        of = (reader.org_unit, self.kind, filter_id)
        found = await kept.versions(serving.postgres, of, (page - 1) * limit, limit)
        if not found and not await kept.versions(serving.postgres, of, 0, 1):
            raise self._missing()
        return json([_version(one) for one in found])

    def _new(self, body: bytes) -> Definition:
        fields = given(bodies.decoded(body))
        fields.setdefault("id", f"{_PREFIXES[self.kind]}-{secrets.token_hex(4)}")
        return definition(self.kind, fields)

    def _whole(self, body: bytes, filter_id: str) -> Definition:
        return definition(self.kind, given(bodies.decoded(body), filter_id))

    def _changes(self, body: bytes, filter_id: str) -> tuple[Definition, Sequence[str]]:
        """A definition that has the fields of a body, and which these are."""
        fields = given(bodies.decoded(body), filter_id)
        whole = {**filters_documented.DEFINITIONS[self.kind], **fields}
        return definition(self.kind, whole), list(fields)

    def _answer(self, org_unit: str, edit: Editing, status: int = 200) -> Response:
        one = self._mine(edit.kept)
        headers = {"ETag": etag(one.version)}
        if status == 201:  # noqa: PLR2004 - Created
            headers["Location"] = f"{self.path}/{one.definition['id']}"
        return json(_shown(org_unit, one), status, headers)

    def _mine(self, found: Kept | None) -> Kept:
        if found is None or found.kind != self.kind:
            raise self._missing()
        return found

    def _require_id(self, filter_id: str) -> None:
        if not _ID.fullmatch(filter_id):
            raise self._missing()

    def _missing(self) -> Refused:
        return Refused(404, f"There is no {self.kind} filter of this id")


def _shown(org_unit: str, one: Kept) -> dict[str, Any]:
    return {
        "org_unit": org_unit,
        **one.definition,
        "version": one.version,
        "changed_at": time_text(one.changed_at),
        "changed_by": one.changed_by,
    }


def _version(one: kept.Version) -> dict[str, Any]:
    return {
        "version": one.version,
        "changed_at": time_text(one.changed_at),
        "changed_by": one.changed_by,
        "deleted": one.definition is None,
        "definition": one.definition,
    }


@router.get("/rules", **documented(filters_documented.RulesInForce, filters_documented.RULES))
async def list_rules(serving: Serving, _: FiltersReader) -> Response:
    """The revision of all rules in force, and which one each worker decides with.  A worker that has an older one notices
    before it commits anything, and decides again.
    """
    presence = await workers.seen(serving.postgres)
    return json({"revision": presence.revision, "workers": [_worker(w) for w in presence.workers]})


def _worker(worker: workers.Worker) -> dict[str, Any]:
    return {
        "id": worker.id,
        "rules_revision": worker.rules_revision,
        "started_at": time_text(worker.started_at),
        "seen_at": time_text(worker.seen_at),
    }


def _add_routes(resource: Resource) -> None:
    """Its operations, each with what OpenAPI says of it."""
    one = f"{resource.path}/{{filter_id}}"
    said = filters_documented.operations(resource.kind)
    for method, path, handler in (
        ("GET", resource.path, resource.list_filters),
        ("POST", resource.path, resource.create_filter),
        ("GET", one, resource.get_filter),
        ("PUT", one, resource.replace_filter),
        ("PATCH", one, resource.change_filter),
        ("DELETE", one, resource.delete_filter),
        ("GET", f"{one}/versions", resource.list_versions),
    ):
        router.add_api_route(path, handler, methods=[method], **said[handler.__name__])


for _kind in MODELS:
    _add_routes(Resource(_kind))
