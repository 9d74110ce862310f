"""Component plan."""

# No postponed annotations here: KFP reads them as types.
from components.base import component


@component(image="base")
def plan(
    recipe: str,
    overrides: list[str],
    train_subsets: list[str],
    dev_subsets: list[str],
    test_subsets: list[str],
    pretrained_dir: str,
    start_stage: int,
    stop_stage: int,
) -> list[str]:
    """Checks recipe, stages, subsets and pretrained models before anything is downloaded. Returns all subsets."""
    from cosyflow.stages import plan

    return plan.run(
        recipe, overrides, train_subsets, dev_subsets, test_subsets, pretrained_dir, start_stage, stop_stage
    )
