"""The commands that take a trained network: evaluate, export and predict.

Each imports what it needs only when it runs, so that its help and errors in its arguments are printed at once.
"""

import sys

from nestnet.cli.parser import Parser, add_state_options, path
from nestnet.cli.terminal import drop_unwritten_output, flush, print_result, print_text
from nestnet.text.escape import for_terminal


def evaluate(arguments: list[str]) -> None:
    """Print how well a subnet of a run recognises the test images: top-1, and metrics of each class.

    These are precision, recall and F1 of each class, their means, of which that of recall is the balanced accuracy, and
    the confusion matrix. Where images may have several labels, it is the average precision of each class, and its mean.
    """
    parser = Parser("nestnet evaluate", evaluate.__doc__)
    parser.add_argument("run_dir", type=path, metavar="RUN_DIR", help="folder of a run")
    parser.add_argument("--mode", required=True, choices=("base", "motivated"), help="subnet to use")
    parser.add_argument(
        "--data.root",
        dest="root",
        type=path,
        metavar="FOLDER",
        help="evaluate on the images of another folder, which has a folder for each class: on those of its test/ or val/ "
        "if it has them, otherwise on all",
    )
    parser.add_argument("--format", choices=("text", "csv", "json"), default="text")
    add_state_options(parser)
    options = parser.parse_args(arguments)

    from nestnet.device import choose_device
    from nestnet.nn.mode import Mode
    from nestnet.runs.reading import read_run
    from nestnet.runtime.log import log_notice
    from nestnet.training.evaluation_text import format_evaluation
    from nestnet.training.run_evaluation import evaluate_run
    from nestnet.training.subnet_warnings import subnet_warnings

    mode = Mode(options.mode)
    run = read_run(options.run_dir, best=mode if options.best else None)
    root = None if options.root is None else str(options.root)
    evaluation = evaluate_run(run, mode, choose_device("auto"), root=root, recalibrate=options.recalibrate)
    lines = "\n".join(format_evaluation(evaluation, options.format))
    if options.format == "text":
        print_text(lines)
    else:
        print_result(lines)
    shortcomings = subnet_warnings(
        evaluation.net,
        mode,
        run.trained,
        recalibrated=evaluation.recalibrated,
        run_dir=run.path,
        output=f"{mode}.safetensors",
        best=options.best,
        base_is_given=run.config.extends_given_base,
        statistics_are_given=run.config.model.freeze is not None,
    )
    for shortcoming in shortcomings:
        log_notice(shortcoming)


def export(arguments: list[str]) -> None:
    """Export a subnet of a run to a file, check it against the network, and write a model card beside it.

    Standard output shows how to load the file, and standard error what was checked.
    """
    parser = Parser("nestnet export", export.__doc__)
    parser.add_argument("run_dir", type=path, metavar="RUN_DIR", help="folder of a run")
    parser.add_argument("--mode", required=True, choices=("base", "motivated"), help="subnet to use")
    parser.add_argument("--output", required=True, type=path, metavar="FILE|FOLDER")
    parser.add_argument(
        "--format",
        choices=("safetensors", "onnx", "openvino", "executorch", "torch-export", "timm"),
        help="by default the one that the suffix of FILE names (.safetensors, .onnx, .xml, .pte, .pt2), otherwise safetensors; "
        "timm makes a FOLDER that timm loads without any argument and that can be pushed to the Hugging Face Hub",
    )
    parser.add_argument(
        "--preprocessing",
        choices=("outside", "inside"),
        default="outside",
        help="inside: the file takes raw pixels, uint8 [batch, height, width, channels] of any size (executorch: up to "
        "1024 x 1024), and resizes, crops and normalises them itself (default: outside)",
    )
    parser.add_argument(
        "--opset", type=int, metavar="N", help="version of ONNX's operators, for ONNX files (default: torch's choice)"
    )
    add_state_options(parser)
    parser.add_argument(
        "--precision",
        choices=("float32", "int8"),
        default="float32",
        help="int8: an ONNX file in 8-bit integers, refused if it loses too much accuracy (default: float32)",
    )
    parser.add_argument(
        "--calibration_images", type=int, metavar="N", help="for int8: calibrate on N training images (default: 512)"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="POINTS",
        help="for int8: percentage points of top-1 on the test images that it may lose (default: 1)",
    )
    options = parser.parse_args(arguments)

    from nestnet.deploy.export_run import export_run
    from nestnet.deploy.formats import choose_format
    from nestnet.deploy.int8_export import choose_int8_settings, require_onnx, require_preprocessing_outside
    from nestnet.nn.mode import Mode
    from nestnet.runs.reading import read_run

    # A missing package or a wrong option is reported before the run is read.
    export_format = choose_format(options.output, options.format, opset=options.opset)
    export_format.check_packages()
    export_format.check_preprocessing(options.preprocessing)
    int8 = choose_int8_settings(options.precision, options.calibration_images, options.tolerance)
    if int8 is not None:
        require_onnx(export_format)
        require_preprocessing_outside(options.preprocessing)
    mode = Mode(options.mode)
    run = read_run(options.run_dir, best=mode if options.best else None)
    done = export_run(
        run,
        mode,
        options.output,
        format_name=options.format,
        recalibrate=options.recalibrate,
        int8=int8,
        preprocessing=options.preprocessing,
        opset=options.opset,
    )
    print_text(for_terminal(f"wrote {done.path} and {done.card}; checked with {done.check}"), file=sys.stderr)
    print_text(done.usage)


def predict(arguments: list[str]) -> None:
    """Print the most likely classes of image files, as an exported network predicts them.

    A file that cannot be read is named on standard error. The other files are still classified, and the exit
    code is 2.
    """
    parser = Parser("nestnet predict", predict.__doc__)
    parser.add_argument("paths", type=path, nargs="+", metavar="FILE|FOLDER", help="images, or folders of them")
    networks = parser.add_mutually_exclusive_group(required=True)
    networks.add_argument(
        "--model", type=path, metavar="FILE", help=".safetensors, .onnx, .xml or .pte export, or folder of timm"
    )
    networks.add_argument(
        "--cascade", type=path, metavar="FILE", help="cascade of two networks, as `nestnet cascade` exports it"
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="number of classes per image (default: 5)")
    parser.add_argument(
        "--batch_size", type=int, default=32, metavar="N", help="number of images at a time (default: 32)"
    )
    parser.add_argument("--format", choices=("text", "csv", "json"), default="text")
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module of yours that registers the network's family",
    )
    options = parser.parse_args(arguments)
    # An export names no modules of its own: a file that somebody sends must not have code imported.
    from nestnet.config.imports import import_modules

    import_modules(options.imports)

    from nestnet.cascade.predictor import CascadePredictor
    from nestnet.deploy.predict import predict as predict_files
    from nestnet.deploy.predictor import Predictor
    from nestnet.device import choose_device

    predictor: Predictor
    if options.cascade is not None:
        predictor = CascadePredictor(options.cascade, choose_device("auto"))
    else:
        predictor = Predictor(options.model, choose_device("auto"))
    errors: list[str] = []
    try:
        predict_files(
            options.paths,
            predictor,
            top=options.top,
            batch_size=options.batch_size,
            layout=options.format,
            tell=print_result,
            tell_error=errors.append,
        )
        flush()
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe. Files that could not be read are still reported.
        drop_unwritten_output()
    for error in errors[:-1]:
        print_text(for_terminal(f"nestnet predict: error: {error}"), file=sys.stderr)
    if errors:
        raise ValueError(errors[-1])
