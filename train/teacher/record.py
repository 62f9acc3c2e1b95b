"""A finished teacher on disk, and what it records of its training.

```
RUN/teacher.json           classes, settings, corpus and split of recordings, hashes, code and machine
RUN/teacher.safetensors    the mean of the network's weights: mn04's, fine-tuned, and the new layers'
```
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load, save

from streamer.errors import EarwitnessError
from streamer.provenance import Environment
from train.data.summary import Summary
from train.files import replace
from train.split import Known, Pin, pin_of
from train.teacher.config import TeachConfig
from train.teacher.network import TeacherNetwork

JSON, TENSORS = "teacher.json", "teacher.safetensors"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a teacher is made of. Two runs with the same one, apart from the machine, are the same."""

    classes: list[str]
    settings: dict[str, Any]  # of `TeachConfig`
    corpus: dict[str, Any]  # the settings of its corpus
    split: dict[str, list[str]]  # train, validation, test -> groups of recordings
    data_sha256: str  # of media and annotations
    mn04_sha256: str  # of the weights that it began with
    environment: Environment | None = None
    tensors_sha256: str = ""  # of teacher.safetensors

    @classmethod
    def of(cls, corpus: Summary, config: TeachConfig, data_sha256: str, mn04_sha256: str) -> Record:
        """The record of a run that begins."""
        return cls(
            classes=list(corpus.classes),
            settings=config.model_dump(mode="json"),
            corpus=corpus.config,
            split=pin_of(corpus).json(),
            data_sha256=data_sha256,
            mn04_sha256=mn04_sha256,
        )

    def check_same(self, now: Record, out: Path) -> None:
        """Check that a run that began with this record can be resumed with `now`.

        Raises:
            EarwitnessError: settings, corpus, clips or mn04's weights differ.

        """
        before, after = self.settings, now.settings
        differ = [
            f"{name} {before.get(name)}, now it is {after.get(name)}"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
        if (self.classes, self.corpus, self.split) != (now.classes, now.corpus, now.split):
            differ.append("another corpus")
        if self.data_sha256 != now.data_sha256:
            differ.append("other clips or annotations of this corpus")
        if self.mn04_sha256 != now.mn04_sha256:
            differ.append(f"mn04 weights {self.mn04_sha256[:8]}..., now they are {now.mn04_sha256[:8]}...")
        if differ:
            raise EarwitnessError(f"{out}: was begun with {differ[0]}: name another folder, or delete this one")


@dataclass(frozen=True, slots=True)
class Teacher:
    """A finished teacher."""

    name: str  # for errors
    record: Record
    network: TeacherNetwork

    @property
    def known(self) -> Known:
        """What it was trained on, as input to `check_split`."""
        return Known(self.name, Pin.of_json(self.record.split), (self.record.corpus,))

    @classmethod
    def load(cls, folder: Path) -> Teacher:
        """The teacher in a run's folder.

        Raises:
            EarwitnessError: there is none, it is not finished, or it is damaged.

        """
        name, what = f"teacher {folder}", ""
        try:
            what = JSON
            record = msgspec.json.decode((folder / JSON).read_bytes(), type=Record)
            what = TENSORS
            data = (folder / TENSORS).read_bytes()
            if hashlib.sha256(data).hexdigest() != record.tensors_sha256:
                raise ValueError(f"it is not the one that {JSON} describes")
            network = TeacherNetwork.empty(len(record.classes))
            network.load_state_dict(load(data))
        except FileNotFoundError:
            raise EarwitnessError(
                f"{name}: has no {what}: name a folder of `earwitness-train teach`, which writes it after the last step"
            ) from None
        except OSError as error:
            raise EarwitnessError(f"{name}: {what} can't be read: {error.strerror}") from None
        except (msgspec.MsgspecError, SafetensorError, ValueError, RuntimeError) as error:
            raise EarwitnessError(
                f"{name}: {what} is damaged: {' '.join(str(error).split())[:160]}: run `earwitness-train teach` again, "
                "which writes it from the run's last checkpoint"
            ) from None
        return cls(name, record, network.eval().requires_grad_(False))


def write(out: Path, network: TeacherNetwork, record: Record) -> None:
    """Write a teacher, each file atomically; the record last."""
    data = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    whole = msgspec.structs.replace(record, tensors_sha256=hashlib.sha256(data).hexdigest())
    replace(out / TENSORS, data)
    replace(out / JSON, msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n")
