"""Where the samples of a training are shown: TensorBoard and MLflow. Neither can stop the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cosyflow import storage
from cosyflow.audio.picture import RATE, mel_picture
from cosyflow.audio.speech import load_speech
from cosyflow.errors import AudioError
from cosyflow.evaluation.progress import LABEL, Shown, Spoken, spoken_wavs
from cosyflow.mlflow_server import connect
from cosyflow.progress import say
from cosyflow.redaction import redact
from cosyflow.scratch import scratch_folder
from cosyflow.training.tracking.mlflow import noted_run


def show_on(places: Mapping[str, Shown]) -> Shown:
    """Shows samples in each place; one that fails, however, is named in a line, and the next samples go there again."""

    def show(folder: str, spoken: Spoken) -> None:
        for name, place in places.items():
            try:
                place(folder, spoken)
            except Exception as error:
                reason = redact(" ".join(str(error).split()))[:200]
                say(LABEL, f"warning: the samples of {spoken.checkpoint} do not go to {name} ({reason})")

    return show


def to_tensorboard(directory: str) -> Shown:
    """As audio and as pictures at the update of their checkpoint, `samples/UTTERANCE`; a folder or s3://."""

    def show(folder: str, spoken: Spoken) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with scratch_folder() as events:  # a store cannot add to an object
            with SummaryWriter(str(events)) as writer:
                _write(writer, folder, spoken)
            storage.upload_tree(events, directory)

    return show


def to_mlflow(address: str, train_dir: str) -> Shown:
    """As artifacts `samples/UPDATE/` of the training's run: the wavs, and a picture of each."""

    def show(folder: str, spoken: Spoken) -> None:
        run = noted_run(train_dir, address)
        if run is None:
            raise LookupError(f"{train_dir} has noted no run there")
        client = connect(address, MAX_RETRIES=1, TIMEOUT=10)
        for sample, wav in spoken_wavs(folder, spoken):
            place = f"samples/{spoken.update:08d}"
            with storage.local_copy(wav) as path:
                client.log_artifact(run, str(path), place)
            try:
                picture = mel_picture(load_speech(wav, RATE))
            except AudioError:  # too short for one
                continue
            client.log_image(run, picture, artifact_file=f"{place}/{sample.wav.removesuffix('.wav')}.png")

    return show


def _write(writer: Any, folder: str, spoken: Spoken) -> None:
    for sample, wav in spoken_wavs(folder, spoken):
        tag, samples = f"samples/{sample.utt}", load_speech(wav, RATE)
        writer.add_audio(tag, samples[None], spoken.update, sample_rate=RATE)
        writer.add_text(tag, sample.text, spoken.update)
        try:
            picture = mel_picture(samples).convert("RGB")
        except AudioError:  # too short for one
            continue
        writer.add_image(tag, np.array(picture), spoken.update, dataformats="HWC")
